"""Which subscriptions of a topic want a message: its routing key fits their pattern, and their filter matches.

The leader asks when a publish is proposed, and writes the answer into it, so that what replicas do depends neither on
how JSON is read nor on this code. A pattern or filter that cannot be compiled here (a gateway of another version let it
in) wants nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from storage import record_keys, records
from storage.block import Part, parts_between
from storage.conditions import FilterError
from storage.fields import Fields
from storage.filters import Filter, On, compile_filter
from storage.patterns import PatternError, PatternIndex
from storage.records import Subscription, Topic
from storage.state import State
from storage.topic_operations import (
    Publish,
    Target,
    Verdict,
)

CHECK_EVERY = 16
"""Messages that are matched before somebody looks whether that takes too long."""


class MatchingTooLongError(Exception):
    """Matching was given up."""


class View:
    """A message as filters see it; each view of it is made once."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._views: dict[On, Fields | None] = {}

    def fields(self, filter_: Filter) -> Fields | None:
        """What a filter looks at."""
        if filter_.on not in self._views:
            self._views[filter_.on] = filter_.fields(self._part)
        return self._views[filter_.on]


class Table:
    """The subscriptions of a topic, compiled."""

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        self.subscriptions = {subscription.name: subscription for subscription in subscriptions}
        self._index = PatternIndex()
        self._filters: dict[str, Filter] = {}
        self._broken: dict[str, str] = {}
        for name, subscription in self.subscriptions.items():
            try:
                if subscription.filter:
                    self._filters[name] = compile_filter(subscription.filter, subscription.filter_on)
                self._index.add(subscription.pattern, name)
            except (PatternError, FilterError) as error:
                self._broken[name] = str(error)

    def targets(self, publish: Publish, block: memoryview, is_too_long: Callable[[], bool]) -> list[Target]:
        """Who wants which messages of a publish whose block is whole, in order of name.

        Raises `MatchingTooLongError` when `is_too_long` says so, and `BadChecksumError`.
        """
        wanted: dict[str, list[tuple[int, int]]] = {}
        fitting: dict[str, list[str]] = {}
        total = publish.count * (1 + publish.enveloped)
        parts = parts_between(block, total, 0, publish.count) if self._filters else None
        for position in range(publish.count):
            if position % CHECK_EVERY == 0 and is_too_long():
                raise MatchingTooLongError
            key = publish.routing_keys[position] if publish.routing_keys else ""
            if key not in fitting:
                fitting[key] = self._index.match(key)
            message = None if parts is None else View(next(parts))
            for name in fitting[key]:
                filter_ = self._filters.get(name)
                if filter_ is None or message is None or filter_.matches(message.fields(filter_)):
                    _add(wanted.setdefault(name, []), position)
        return [Target(name, self.subscriptions[name].version, wanted[name]) for name in sorted(wanted)]

    def verdicts(self, routing_key: str, part: Part) -> list[Verdict]:
        """What each subscription says of a message, in order of name. The queues are not looked at."""
        fitting, message = set(self._index.match(routing_key)), View(part)
        verdicts = []
        for name, subscription in sorted(self.subscriptions.items()):
            why, filter_ = "", self._filters.get(name)
            if name in self._broken:
                why = f"it cannot be read here: {self._broken[name]}"
            elif name not in fitting:
                why = f"the routing key {routing_key!r} does not fit the pattern {subscription.pattern!r}"
            elif filter_ is not None:
                miss = filter_.explain(message.fields(filter_))
                why = "" if miss is None else f"the filter does not match: {miss}"
            verdicts.append(Verdict(name, subscription.queue, not why, why))
        return verdicts


def _add(runs: list[tuple[int, int]], position: int) -> None:
    if runs and sum(runs[-1]) == position:
        runs[-1] = (runs[-1][0], runs[-1][1] + 1)
    else:
        runs.append((position, 1))


def find_topic(state: State, name: str) -> Topic | None:
    """The record of the topic called `name`, or None."""
    found = state.get(record_keys.topic_key(name))
    return None if found is None else records.decode_topic(found)


def table_of(state: State, topic: Topic) -> Table:
    """The subscriptions of a topic as they are now."""
    found = state.scan(record_keys.subscription_prefix(topic.number))
    return Table(records.decode_subscription(record) for _, record in found)
