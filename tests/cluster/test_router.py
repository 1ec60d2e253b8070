"""What the leader finds out about a publish before it is logged: where it goes, and in which form."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cluster.dispatcher import Request
from cluster.router import Router
from storage.block import encode_block, parts
from storage.codes import MALFORMED
from storage.machine import apply
from storage.memory_store import MemoryStore
from storage.operations import Keyed, Operation, Refused, decode_items, encode_entry, encode_item
from storage.queue_operations import PutQueue
from storage.settings import QueueSettings
from storage.topic_operations import Publish, PutSubscription, PutTopic

PLAIN, ENVELOPED = [(b"a", b"\x80"), (b"b", b"")], [(b"<a>", b""), (b"<b>", b"")]


def store(enveloped: Iterable[bool]) -> MemoryStore:
    """A topic with a subscription for each: whether it is enveloped."""
    opened = MemoryStore()
    subscriptions = [PutSubscription("t", f"s{number}", "q", enveloped=each) for number, each in enumerate(enveloped)]
    asked: list[Operation] = [PutQueue("q", QueueSettings()), PutTopic("t"), *subscriptions]
    entry = encode_entry(1, [encode_item(1, seq, each) for seq, each in enumerate(asked, 1)])
    opened.begin()
    opened.append(1, 1, entry)
    apply(opened, 1, entry)
    opened.commit()
    return opened


def routed(opened: MemoryStore, block: bytes) -> tuple[Publish, list[bytes]] | Refused:
    operation = Keyed(bytes(16), bytes(16), Publish("t", 2, enveloped=True))
    request = Request("gateway", 7, 1, operation, encode_item(7, 1, operation, block), 0.0, 0)
    refused = Router(opened, lambda: 0.0).route(request)
    if refused is not None:
        return refused
    ((item, _),) = decode_items(request.raw)
    assert item.operation == request.operation
    assert isinstance(item.operation, Keyed)
    publish = item.operation.operation
    assert isinstance(publish, Publish)
    return publish, [bytes(part.data) for part in parts(item.block, 2 * (1 + publish.enveloped))]


@pytest.mark.parametrize(
    ("subscriptions", "kept", "forms"),
    [
        ([False], [b"a\x80", b"b"], False),
        ([], [b"a\x80", b"b"], False),
        ([True, True], [b"<a>", b"<b>"], False),
        ([True, False], [b"a\x80", b"b", b"<a>", b"<b>"], True),
    ],
)
def test_only_the_forms_that_somebody_takes_are_logged(
    subscriptions: list[bool], kept: list[bytes], forms: bool
) -> None:
    found = routed(store(subscriptions), encode_block(PLAIN + ENVELOPED))
    assert not isinstance(found, Refused)
    publish, bodies = found
    assert (publish.enveloped, bodies) == (forms, kept)
    assert [target.wanted for target in publish.targets or []] == [[(0, 2)]] * len(subscriptions)


def test_what_was_damaged_on_its_way_is_refused_and_not_put_together_anew() -> None:
    block = bytearray(encode_block(PLAIN + ENVELOPED))
    block[-1] ^= 1
    assert routed(store([True]), bytes(block)) == Refused(MALFORMED)
