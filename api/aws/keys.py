"""Who may come in by SQS and SNS, and how those who may not are told.

While there is no access key at all, clients on this machine are let in as they are, signed or not: SDKs always sign,
with whatever they were given. As soon as there is one, every request must be signed with a key that is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from aiohttp import web

from api.access import KEYS, http_request, is_local
from api.aws import sigv4
from api.aws.errors import AwsError, common
from api.aws.names import ACCOUNT, REGION
from api.aws.sigv4 import Claim
from api.rights import Grant, Need
from storage.operations import Operation


class Sender(NamedTuple):
    """Who sent a request: what they may do, and what they signed, if they had to."""

    grant: Grant
    claim: Claim | None


_ANYBODY = Sender(Grant(None), None)


async def authenticate(request: web.Request, body: bytes, services: Sequence[str]) -> Sender:
    """Who sent the request, which must be signed for one of the services. Raises `AwsError` and `ClusterTrouble`."""
    ring = request.app[KEYS]
    known = await ring.known()
    if not known.keys:
        if is_local(request):
            return _ANYBODY
        said = (
            "Access denied: there are no access keys, and without them only clients on the same machine are served, "
            "which ask for it by its address or as localhost."
        )
        raise common("AccessDeniedException", said)
    asked = http_request(request, body)
    claim = sigv4.read(asked)
    if claim is None:
        raise common("MissingAuthenticationTokenException", "Request is missing Authentication Token")
    key = await ring.find(claim.access_key_id, known)
    if key is None:
        raise common("InvalidClientTokenIdException", "The security token included in the request is invalid.")
    service = claim.service if claim.service in services else services[0]
    sigv4.verify(claim, asked, key.secret, service, datetime.now(UTC))
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
