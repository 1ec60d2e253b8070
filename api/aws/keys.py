"""Who may come in by SQS and SNS, and how those who may not are told.

While there is no access key at all, clients on this machine are let in as they are, signed or not: SDKs always sign,
with whatever they were given. As soon as there is one, every request must be signed with a key that is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from api.access import KeyRing
from api.aws import sigv4
from api.aws.errors import AwsError, common
from api.aws.names import ACCOUNT, REGION
from api.aws.sigv4 import Claim, HttpRequest
from api.rights import Grant, Need
from storage.operations import Operation


class Sender(NamedTuple):
    """Who sent a request: what they may do, and what they signed, if they had to."""

    grant: Grant
    claim: Claim | None


async def authenticate(
    ring: KeyRing, request: HttpRequest, services: Sequence[str], now: datetime, *, is_local: bool
) -> Sender:
    """Who sent the request, which must be signed for one of the services. Raises `AwsError` and `ClusterTrouble`."""
    known = await ring.known()
    if not known.keys:
        if is_local:
            return Sender(Grant(None), None)
        said = (
            "Access denied: there are no access keys, and without them only clients on the same machine are served, "
            "which ask for it by its address or as localhost."
        )
        raise common("AccessDeniedException", said)
    claim = sigv4.read(request)
    if claim is None:
        raise common("MissingAuthenticationTokenException", "Request is missing Authentication Token")
    key = await ring.find(claim.access_key_id, known)
    if key is None:
        raise common("InvalidClientTokenIdException", "The security token included in the request is invalid.")
    sigv4.verify(claim, request, key.secret, claim.service if claim.service in services else services[0], now)
    return Sender(Grant(key), claim)


def admitted(grant: Grant, operation: Operation, service: str, action: str) -> Operation:
    """The operation as the sender of a request for `action` may have it done. Raises `AwsError` if it may not."""
    need = grant.missing(operation)
    if need is not None:
        raise denied(grant, need, service, action)
    return grant.bound(operation)


def denied(grant: Grant, need: Need, service: str, action: str) -> AwsError:
    """The refusal of what a key does not allow."""
    assert grant.key is not None
    asked = f"{service}:{action.lower()}"
    return common(
        "AccessDeniedException",
        f"User: arn:aws:iam::{ACCOUNT}:user/{grant.key.id} is not authorized to perform: {asked} on resource: "
        f"arn:aws:{service}:{REGION}:{ACCOUNT}:{need.name or '*'} because no identity-based policy allows the "
        f"{asked} action",
    )
