"""Who may come in: access keys, and how it is without any.

While there is no key at all, clients on this machine are let in as they are, signed or not: SDKs always sign, with
whatever they were given. As soon as there is one, every request must be signed with a key that is known.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol

from api.aws import sigv4
from api.aws.errors import common
from api.aws.sigv4 import HttpRequest


class AccessKey(NamedTuple):
    """A key that is known, and the secret it is signed with."""

    id: str
    secret: str


class Keys(Protocol):
    """The access keys of the cluster."""

    async def lookup(self, access_key_id: str) -> AccessKey | None:
        """The key of this id, None if there is none or it was revoked."""
        ...

    async def exist(self) -> bool:
        """Whether there is any key."""
        ...


class NoKeys:
    """There are no keys yet."""

    async def lookup(self, access_key_id: str) -> AccessKey | None:
        """None."""
        return None

    async def exist(self) -> bool:
        """No."""
        return False


async def authenticate(
    keys: Keys, request: HttpRequest, service: str, now: datetime, *, is_local: bool
) -> AccessKey | None:
    """The key that the request was signed with; None for a local client while there are no keys. Raises `AwsError`."""
    if not await keys.exist():
        if is_local:
            return None
        said = "Access denied: there are no access keys, and without them only clients on the same machine are served."
        raise common("AccessDeniedException", said)
    claim = sigv4.read(request)
    if claim is None:
        raise common("MissingAuthenticationTokenException", "Request is missing Authentication Token")
    key = await keys.lookup(claim.access_key_id)
    if key is None:
        raise common("InvalidClientTokenIdException", "The security token included in the request is invalid.")
    sigv4.verify(claim, request, key.secret, service, now)
    return key
