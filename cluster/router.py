"""Where publishes go, at the leader: what it finds out it writes into the operation before it is logged."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cluster.dispatcher import Request
from storage.block import BadChecksumError, is_whole, join, parts_between
from storage.codes import MALFORMED, MATCHING_TOO_LONG
from storage.operations import (
    Keyed,
    Refused,
    decode_items,
    encode_item,
)
from storage.routing import MatchingTooLongError, Table, find_topic, table_of
from storage.state import State
from storage.topic_operations import (
    Publish,
    Target,
)

MATCHING_MS_MAX = 100
"""How long one publish may be matched: everything else waits meanwhile."""

TABLES_MAX = 1000
"""Topics whose subscriptions are kept compiled."""


class Router:
    """Fills in the targets of publishes."""

    def __init__(self, state: State, monotonic: Callable[[], float]) -> None:
        self._state, self._monotonic = state, monotonic
        self._tables: dict[int, tuple[int, Table]] = {}
        """Topic number → its version, and its subscriptions then; the topic asked about last is last."""

    def route(self, request: Request) -> Refused | None:
        """Fill in the targets of a request that publishes, from what is applied now."""
        asked = request.operation
        operation = asked.operation if type(asked) is Keyed else asked
        if type(operation) is not Publish:
            return None
        ((item, _),) = decode_items(request.raw)
        targets = self.targets(operation, item.block)
        if isinstance(targets, Refused):
            return targets
        try:
            routed, block = self._slimmed(msgspec.structs.replace(operation, targets=targets), item.block)
        except BadChecksumError:
            return Refused(MALFORMED)
        request.operation = msgspec.structs.replace(asked, operation=routed) if type(asked) is Keyed else routed
        request.raw = encode_item(request.session, request.seq, request.operation, block)
        return None

    def _slimmed(self, publish: Publish, block: memoryview) -> tuple[Publish, bytes | memoryview]:
        """A publish without the form of its messages that nobody takes: the log keeps what it is given."""
        table = self._table(publish.topic)
        if not publish.enveloped or table is None:
            return publish, block
        forms = {table.subscriptions[target.subscription].enveloped for target in publish.targets or []}
        if len(forms) > 1:
            return publish, block
        first = publish.count if True in forms else 0
        kept = join(parts_between(block, 2 * publish.count, first, first + publish.count))
        return msgspec.structs.replace(publish, enveloped=False), kept

    def targets(self, publish: Publish, block: memoryview) -> list[Target] | Refused:
        """Which subscriptions want which of the messages, from what is applied now."""
        is_sound = len(publish.routing_keys) in (0, publish.count)
        if not (is_sound and is_whole(block, publish.count * (1 + publish.enveloped))):
            return Refused(MALFORMED)
        table = self._table(publish.topic)
        if table is None:
            return []  # the rules will say so
        give_up_s = self._monotonic() + MATCHING_MS_MAX / 1000
        try:
            return table.targets(publish, block, lambda: self._monotonic() > give_up_s)
        except MatchingTooLongError:
            return Refused(MATCHING_TOO_LONG, MATCHING_MS_MAX)
        except BadChecksumError:
            return Refused(MALFORMED)

    def _table(self, name: str) -> Table | None:
        topic = find_topic(self._state, name)
        if topic is None:
            return None
        version, table = self._tables.pop(topic.number, (-1, None))
        if table is None or version != topic.version:
            table = table_of(self._state, topic)
        self._tables[topic.number] = topic.version, table
        if len(self._tables) > TABLES_MAX:
            del self._tables[next(iter(self._tables))]
        return table
