"""Filters of consumers as the naive model has them: a message knows which selectors have seen it, and what each wants.

What is looked at in a step is the leader's word; `look` notes what was known by then, `sift` what becomes of it. Where
nobody sees the leader look, `look_back` finds it out afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from storage import codes
from storage.operations import Done, Outcome, Receive, Refused
from storage.sift_operations import Sift

if TYPE_CHECKING:
    from tests.storage.naive import Message, Naive, Queue

SELECTORS_MAX, WINDOW_MS = 2, 20_000
SIEVES: dict[str, Callable[[Message], bool]] = {
    'body {"k": [1]}': lambda message: message.content[0] == b'{"k":1}',
    'body {"k": [{"exists": true}]}': lambda message: b'"k"' in message.content[0],
    'attributes {"x": [1]}': lambda message: b"\xa1x\x01" in message.content[1],
    'attributes {"x": [{"exists": false}]}': lambda message: b"\xa1x" not in message.content[1],
}
"""Filters, and what they mean here."""


@dataclass
class Selector:
    key: int
    sieve: str
    used_ms: int
    sifted_id: int
    until_id: int
    since: int = 0
    """The log entry that made it known."""
    number: int = 0
    """What the rules call it, as far as the model was told."""

    @property
    def is_behind(self) -> bool:
        return self.sifted_id < self.until_id


@dataclass
class Look:
    """What was known when the leader looked."""

    queue: int
    step: int
    selectors: dict[int, int]
    """Number → key."""
    sifted_ids: dict[int, int]
    versions: dict[int, int] = field(default_factory=dict)
    """Of the messages that were to be sifted: how often each had been edited."""


class Sifting:
    """What the model knows about selectors."""

    def __init__(self, naive: Naive) -> None:
        self._naive = naive
        self.sieves = SIEVES
        self.index = 0
        """The log entry that is being fed, for `look_back`."""
        self._keys = 0
        self._looks: dict[tuple[int, int], Look] = {}

    def came(self, queue: Queue, message: Message) -> None:
        """A message has come to a queue, or was edited there."""
        message.unsifted = bool(queue.selectors)
        message.since, message.seen = self.index, set()

    def edited(self, queue: Queue, message: Message) -> None:
        message.version += 1
        self.came(queue, message)

    def selector(self, queue: Queue, operation: Receive) -> Selector | Refused | None:
        """The selector of a receive, made known if need be. None: the one that its leader knew is forgotten."""
        if queue.settings.groups:
            return Refused(codes.FILTER_NOT_ALLOWED)
        if operation.selector:
            known = next((each for each in queue.selectors if each.number == operation.selector), None)
            if known is not None:
                known.used_ms = self._naive.now_ms
            return known
        for each in queue.selectors:
            if each.sieve == operation.sieve:
                each.used_ms = self._naive.now_ms
                return each
        if len(queue.selectors) >= SELECTORS_MAX:
            return Refused(codes.SELECTOR_LIMIT, SELECTORS_MAX)
        self._keys += 1
        since = queue.messages[0].message_id if queue.messages else queue.next_id
        queue.selectors.append(
            Selector(self._keys, operation.sieve, self._naive.now_ms, since, queue.next_id, self.index)
        )
        return queue.selectors[-1]

    def end(self, queue: Queue, selector: Selector) -> int | None:
        """The first message that is still to be put to a selector."""
        ids = [message.message_id for message in queue.messages if message.unsifted]
        return min(ids + ([selector.sifted_id] if selector.is_behind else []), default=None)

    def next(self, queue: Queue, selector: Selector) -> list[Message]:
        """What would be delivered next through a selector."""
        marked = [
            (message.rank, message.message_id, message)
            for message in queue.messages
            if message.state == "ready" and selector.key in message.seen and self.sieves[selector.sieve](message)
        ]
        end = self.end(queue, selector)
        if not marked or (end is not None and min(marked)[1] >= end):
            return []
        return [min(marked)[2]]

    def forget(self, queue: Queue, selectors: list[Selector]) -> None:
        queue.selectors = [each for each in queue.selectors if each not in selectors]
        if not queue.selectors:
            for message in queue.messages:
                message.unsifted = False

    def due(self) -> None:
        for queue in self._naive.queues.values():
            over = [each for each in queue.selectors if each.used_ms + WINDOW_MS <= self._naive.now_ms]
            self.forget(queue, over)

    # --- steps ---

    def look(self, queue: Queue, sift: Sift, numbers: list[int]) -> None:
        """The leader has looked. `numbers` are those of the queue's selectors, in order."""
        keys = [each.key for each in queue.selectors]
        look = Look(queue.number, queue.sifts, dict(zip(numbers, keys, strict=True)), {})
        look.sifted_ids = {each.key: each.sifted_id for each in queue.selectors}
        look.versions = {each.message_id: each.version for each in queue.messages if each.unsifted}
        self._looks[sift.number, sift.sift] = look

    def look_back(self, queue: Queue | None, sift: Sift, index: int) -> None:
        """The leader had looked when the log entry `index` was the last one that it had applied. Whatever was known by
        then and still is, is as it was: since then no other step of the queue was taken, or this one is not, either."""
        if queue is None:
            self._looks[sift.number, sift.sift] = Look(0, 0, {}, {})
            return
        known = [each for each in queue.selectors if each.since <= index]
        look = Look(queue.number, sift.sift, {each.number: each.key for each in known}, {})
        look.sifted_ids = {each.key: each.sifted_id for each in known}
        look.versions = {
            each.message_id: each.version for each in queue.messages if each.unsifted and each.since <= index
        }
        self._looks[sift.number, sift.sift] = look

    def sift(self, operation: Sift) -> Outcome:
        look = self._looks[operation.number, operation.sift]
        queue = next((each for each in self._naive.queues.values() if each.number == look.queue), None)
        if queue is None or queue.sifts != look.step:
            return Done()
        queue.sifts += 1
        known = {look.selectors.get(number) for number in operation.behind}
        behind = [each for each in queue.selectors if each.key in known]
        for message in queue.messages:
            if not message.unsifted:
                message.seen |= {
                    each.key
                    for each in behind
                    if look.sifted_ids[each.key] <= message.message_id < min(operation.upto, each.until_id)
                }
        told = Counter(
            message_id
            for each in operation.sifted
            if each.index
            for message_id in range(each.first_id, each.first_id + each.count)
        )
        for message in queue.messages:
            message_id = message.message_id
            if message.unsifted and told[message_id] and look.versions.get(message_id) == message.version:
                message.unsifted = False
                message.seen |= set(look.selectors.values())
        for each in behind:
            each.sifted_id = min(max(each.sifted_id, operation.upto), each.until_id)
        return Done()
