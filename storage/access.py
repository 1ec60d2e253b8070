"""Access keys: who may ask the cluster for what. Kept here, so that every replica knows the same; enforced by gateways.

A key's secret is kept sealed, by a key that no store has; only gateways open it. Its roles say what may be done with
it, its patterns with which queues: a `*` stands for any characters, also none.
"""

from __future__ import annotations

import re

from storage import record_keys, records
from storage.access_operations import AccessKeyMade, CreateAccessKey, RevokeAccessKey
from storage.codes import ACCESS_KEY_EXISTS, ACCESS_KEY_LIMIT, ACCESS_KEY_NOT_FOUND, FIRST_ADMIN, LAST_ADMIN
from storage.limits import (
    ACCESS_KEYS_MAX,
    ACCESS_NOTE_BYTES_MAX,
    ACCESS_PATTERN_STARS_MAX,
    ACCESS_PATTERNS_MAX,
    ACCESS_SEALED_BYTES_MAX,
)
from storage.operations import Done, Outcome, Refused
from storage.records import Access, AccessKey
from storage.turn import Turn

ADMIN = "admin"
ROLES = ("producer", "consumer", "manager", ADMIN)
"""What a key may be, from the least to the most. A manager may all that producers and consumers may, an admin all."""
ALL_QUEUES = "*"
PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,100}", re.ASCII)
"""What a pattern may look like: a queue's name, with stars."""
KEY_ID = re.compile(r"[A-Z0-9]{16,32}", re.ASCII)
"""What a key's id may look like: as AWS's clients expect it."""


def is_sound(key: CreateAccessKey) -> bool:
    """Whether the key is one that the rules can work with."""
    return (
        KEY_ID.fullmatch(key.id) is not None
        and 0 < len(key.sealed) <= ACCESS_SEALED_BYTES_MAX
        and 0 < len(set(key.roles)) == len(key.roles)
        and set(key.roles) <= set(ROLES)
        and 0 < len(key.queues) <= ACCESS_PATTERNS_MAX
        and all(map(is_pattern, key.queues))
        and (ADMIN not in key.roles or key.queues == [ALL_QUEUES])
        and len(key.note.encode()) <= ACCESS_NOTE_BYTES_MAX
    )


def is_pattern(text: str) -> bool:
    """Whether a text is a pattern for names of queues."""
    return PATTERN.fullmatch(text) is not None and text.count("*") <= ACCESS_PATTERN_STARS_MAX


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern is for the queue of this name. Nothing is tried twice, whatever the pattern."""
    first, *others = pattern.split("*")
    if not others:
        return name == pattern
    last, at, end = others.pop(), len(first), len(name)
    if not name.startswith(first) or len(first) + len(last) > end or not name.endswith(last):
        return False
    for part in others:
        found = name.find(part, at, end - len(last))
        if found < 0:
            return False
        at = found + len(part)
    return True


def create_access_key(turn: Turn, operation: CreateAccessKey) -> Outcome:
    """A new key. The first is an admin's: somebody must be able to make the others."""
    access = _access(turn)
    if turn.state.get(record_keys.access_key(operation.id)) is not None:
        return Refused(ACCESS_KEY_EXISTS)
    if access.keys >= ACCESS_KEYS_MAX:
        return Refused(ACCESS_KEY_LIMIT, ACCESS_KEYS_MAX)
    is_admin = ADMIN in operation.roles
    if not (access.admins or is_admin):
        return Refused(FIRST_ADMIN)
    key = AccessKey(
        operation.id, operation.sealed, operation.roles, operation.queues, operation.note, created_ms=turn.now_ms
    )
    turn.state.put(record_keys.access_key(key.id), records.encode(key))
    _put(turn, Access(access.keys + 1, access.admins + is_admin, turn.index))
    return AccessKeyMade(key)


def revoke_access_key(turn: Turn, operation: RevokeAccessKey) -> Outcome:
    """A key is none any more. The last admin's goes last: nobody could make or revoke any others."""
    access, found = _access(turn), turn.state.get(record_keys.access_key(operation.id))
    if found is None:
        return Refused(ACCESS_KEY_NOT_FOUND)
    is_admin = ADMIN in records.decode_access_key(found).roles
    if is_admin and access.admins == 1 and access.keys > 1:
        return Refused(LAST_ADMIN)
    turn.state.delete(record_keys.access_key(operation.id))
    _put(turn, Access(access.keys - 1, access.admins - is_admin, turn.index))
    return Done()


def _access(turn: Turn) -> Access:
    found = turn.state.get(record_keys.ACCESS)
    return Access() if found is None else records.decode_access(found)


def _put(turn: Turn, access: Access) -> None:
    turn.state.put(record_keys.ACCESS, records.encode(access))
