"""What can be asked and answered about access keys. A part of `storage.operations`, with the unions."""

from __future__ import annotations

import msgspec

from storage.records import AccessKey

# --- operations -------------------------------------------------------------------------------------------------------


class CreateAccessKey(msgspec.Struct, array_like=True, frozen=True, tag=26):
    """A new access key. → `AccessKeyMade`. See `storage.records.AccessKey`."""

    id: str
    sealed: bytes
    roles: list[str]
    queues: list[str]
    note: str = ""


class RevokeAccessKey(msgspec.Struct, array_like=True, frozen=True, tag=27):
    """An access key is none any more. → `Done`."""

    id: str


# --- queries ----------------------------------------------------------------------------------------------------------


class ListAccessKeys(msgspec.Struct, array_like=True, frozen=True, tag=51):
    """All access keys, by id. → `AccessKeyList`."""


# --- outcomes ---------------------------------------------------------------------------------------------------------


class AccessKeyMade(msgspec.Struct, array_like=True, frozen=True, tag=18):
    """The access key as it was made. Repeated under its operation's id, it is the one that was made first."""

    key: AccessKey


class AccessKeyList(msgspec.Struct, array_like=True, frozen=True, tag=51):
    """All access keys, and the log entry that last made or revoked one (0: none ever was)."""

    keys: list[AccessKey]
    changed_index: int
