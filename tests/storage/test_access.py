"""Access keys by the rules: who may be made, who may go, and what a pattern is for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import codes, limits, queries
from storage.access import is_pattern, is_sound, matches
from storage.access_operations import AccessKeyList, AccessKeyMade, CreateAccessKey, ListAccessKeys, RevokeAccessKey
from storage.operations import Done, Keyed, Refused
from storage.records import AccessKey
from tests.storage.test_machine import START_MS, Shard

ADMIN, OTHER = "TRIADMINADMINADMIN01", "TRIPRODUCERPRODUCE01"


def making(key_id: str = ADMIN, role: str = "admin", *queues: str) -> CreateAccessKey:
    return CreateAccessKey(key_id, b"sealed", [role], list(queues or ["*"]), "for a test")


def listed(shard: Shard) -> AccessKeyList:
    outcome, _ = queries.answer(shard.store, ListAccessKeys())
    assert isinstance(outcome, AccessKeyList)
    return outcome


def test_a_key_is_there_until_it_is_revoked() -> None:
    shard = Shard()
    assert listed(shard) == AccessKeyList([], 0)
    key = AccessKey(ADMIN, b"sealed", ["admin"], ["*"], "for a test", START_MS)
    assert shard.do(making()) == AccessKeyMade(key)
    assert listed(shard) == AccessKeyList([key], shard.store.last_index)
    assert shard.do(making()) == Refused(codes.ACCESS_KEY_EXISTS)
    made_at = listed(shard).changed_index
    assert made_at == queries.access_changed_index(shard.store) == shard.store.last_index - 1
    assert shard.do(RevokeAccessKey(ADMIN)) == Done()
    assert listed(shard) == AccessKeyList([], shard.store.last_index)
    assert shard.do(RevokeAccessKey(ADMIN)) == Refused(codes.ACCESS_KEY_NOT_FOUND)


def test_there_is_always_an_admin_while_there_are_keys() -> None:
    shard = Shard()
    assert shard.do(making(OTHER, "manager")) == Refused(codes.FIRST_ADMIN)
    shard.do(making())
    shard.do(making(OTHER, "manager"))
    assert shard.do(RevokeAccessKey(ADMIN)) == Refused(codes.LAST_ADMIN)
    assert shard.do(making("SECONDADMIN00000")) == AccessKeyMade(
        AccessKey("SECONDADMIN00000", b"sealed", ["admin"], ["*"], "for a test", START_MS)
    )
    assert shard.do(RevokeAccessKey(ADMIN)) == Done()
    assert shard.do(RevokeAccessKey(OTHER)) == Done()
    assert shard.do(RevokeAccessKey("SECONDADMIN00000")) == Done()


def test_a_repeated_creation_answers_with_the_key_that_was_made_first() -> None:
    """Its gateway seals another secret each time; the one that counts is the one that is kept."""
    shard = Shard()
    first = shard.do(Keyed(bytes(16), bytes(16), making()))
    again = CreateAccessKey(OTHER, b"sealed otherwise", ["admin"], ["*"])
    assert shard.do(Keyed(bytes(16), bytes(16), again)) == first
    assert [key.sealed for key in listed(shard).keys] == [b"sealed"]


@pytest.mark.parametrize(
    "wrong",
    [
        making("short"),
        making("lower" * 4),
        CreateAccessKey(ADMIN, b"", ["admin"], ["*"]),
        CreateAccessKey(ADMIN, bytes(limits.ACCESS_SEALED_BYTES_MAX + 1), ["admin"], ["*"]),
        CreateAccessKey(ADMIN, b"s", [], ["*"]),
        CreateAccessKey(ADMIN, b"s", ["root"], ["*"]),
        CreateAccessKey(ADMIN, b"s", ["producer", "producer"], ["*"]),
        CreateAccessKey(ADMIN, b"s", ["producer"], []),
        CreateAccessKey(ADMIN, b"s", ["producer"], ["a"] * (limits.ACCESS_PATTERNS_MAX + 1)),
        CreateAccessKey(ADMIN, b"s", ["producer"], ["a b"]),
        CreateAccessKey(ADMIN, b"s", ["producer"], ["*" * (limits.ACCESS_PATTERN_STARS_MAX + 1)]),
        CreateAccessKey(ADMIN, b"s", ["admin"], ["orders"]),
        CreateAccessKey(ADMIN, b"s", ["admin"], ["*"], "é" * limits.ACCESS_NOTE_BYTES_MAX),
    ],
)
def test_what_is_no_key_is_refused(wrong: CreateAccessKey) -> None:
    shard = Shard()
    assert is_sound(making())
    assert shard.do(wrong) == Refused(codes.MALFORMED)
    assert listed(shard) == AccessKeyList([], 0)


@given(st.text("ab*", min_size=1, max_size=12), st.text("ab", max_size=14))
def test_a_star_stands_for_any_characters(pattern: str, name: str) -> None:
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name) is not None
    assert matches(pattern, name) == expected


def test_patterns_look_like_names() -> None:
    assert all(map(is_pattern, ("*", "orders", "orders-*", "*.fifo", "a*b*c")))
    assert not any(map(is_pattern, ("", "a/b", "a b", "ä", "a?", "x" * 101)))
