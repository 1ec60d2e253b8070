"""What producers and consumers saw, and what must be true of it whatever happened to the nodes.

Pure: times are seconds of one monotonic clock, and nothing is asked. A request is *known* when an answer told its
outcome, and *unknown* when none did: it may have taken effect or not, once or never. A retried request counts as one,
from its first asking to the answer that told its outcome.

`check` gives what it found: violations, each in a sentence, and every second delivery with its cause.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import inf

from cluster.clock import SLEW
from storage.limits import ID_END

SHOWN_MAX = 5
"""Examples that a violation names."""

ACKED, NACKED, STALE, UNKNOWN, DIED, HELD = "acked", "nacked", "stale", "unknown", "died", "held"
"""How a delivery ended for its consumer. UNKNOWN: the ack or nack was never answered; DIED: the consumer never tried;
HELD: it still held the message when the history was written down. STALE: whatever it asked for came too late."""


@dataclass(slots=True, eq=False)
class Sending:
    """A batch that was sent. `message_ids` are what the answer said; None: its outcome is unknown."""

    queue: str
    bodies: list[str]
    asked_s: float
    answered_s: float = inf
    message_ids: list[int] | None = None
    group: str = ""
    """The group of a fifo queue to which all of it belongs."""
    kinds: list[str] = field(default_factory=list)
    """By body, the attribute at which filters look; none where nobody filters."""
    delay_s: float = 0.0


@dataclass(slots=True, eq=False)
class Delivery:
    """A message in the hands of a consumer, and what became of it."""

    queue: str
    message_id: int
    attempt: int
    body: str
    receipt: str
    asked_s: float
    received_s: float
    lease_s: float
    end: str = HELD
    wish: str = ""
    """What the consumer asked for, "ack" or "nack": matters when the end is unknown."""
    end_asked_s: float = inf
    end_known_s: float = inf
    delay_s: float = 0.0
    group: str = ""
    kind: str = ""
    extended_s: float = -inf
    """When it was asked that the lease last as long again from then on, if that is known to be done."""

    @property
    def lease_ends_s(self) -> float:
        """The lease lasts at least until then if nobody ends it: it began after it was asked for."""
        return max(self.asked_s, self.extended_s) + self.lease_s * (1 - SLEW)

    @property
    def held_until_s(self) -> float:
        """Until when nobody else may hold the message. What was nacked may come back as soon as that was asked."""
        if self.wish == "nack" and self.end in (NACKED, UNKNOWN):
            return min(self.lease_ends_s, self.end_asked_s)
        return self.lease_ends_s

    @property
    def gone_s(self) -> float:
        """From when on the message may be gone: as soon as its ack was asked, unless that is known to have failed."""
        return self.end_asked_s if self.wish == "ack" and self.end in (ACKED, UNKNOWN) else inf

    @property
    def returns_s(self) -> float:
        """Before this moment the message cannot be ready again."""
        nack_ends_s = self.end_asked_s + self.delay_s * (1 - SLEW)
        if self.end == NACKED:
            return nack_ends_s
        if self.end == UNKNOWN and self.wish == "nack":
            return min(self.lease_ends_s, nack_ends_s)
        return self.lease_ends_s


@dataclass(slots=True, eq=False)
class Receiving:
    """A receive. One that was not answered at once may have leased messages that nobody saw: a later answer under the
    same key gives only those that are still held."""

    queue: str
    messages_max: int
    asked_s: float
    answered_s: float = inf
    deliveries: list[Delivery] = field(default_factory=list)
    is_unsure: bool = False
    """Whether some try was not answered, or answered with "unknown"."""
    wanted: frozenset[str] | None = None
    """The kinds that its filter wants; None: it has no filter."""
    is_sifting: bool = False
    """Whether it was told that what was there is still to be put to its filter."""

    def wants(self, kind: str) -> bool:
        """Whether a message of this kind may come."""
        return self.wanted is None or kind in self.wanted

    @property
    def says_nothing_is_there(self) -> bool:
        """Whether it was told that nothing was there for it. If a try was not answered, that try may have taken it."""
        return self.answered_s < inf and not (self.deliveries or self.is_unsure or self.is_sifting)


@dataclass(frozen=True, slots=True)
class Count:
    """Messages that a queue counted while nobody was doing anything, and what the history allows."""

    queue: str
    counted: int
    lowest: int
    highest: int


@dataclass(slots=True)
class Findings:
    """What a history holds. It is good when there are no violations."""

    violations: list[str]
    operations: int
    messages: int
    lost: int
    unexpected: int
    duplicates: Counter[str]
    unexplained: int


@dataclass
class History:
    """Everything that was asked, in the order in which it was asked."""

    sendings: list[Sending] = field(default_factory=list)
    receivings: list[Receiving] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """Every answer by kind, retries counted: "send 201", "ack 503 unknown"."""
    surprises: list[str] = field(default_factory=list)
    """Answers that no rule allows."""

    @property
    def deliveries(self) -> list[Delivery]:
        """All deliveries that consumers saw."""
        return [delivery for receiving in self.receivings for delivery in receiving.deliveries]

    @property
    def failures(self) -> Counter[str]:
        """Answers other than 2xx."""
        return Counter({kind: count for kind, count in self.answers.items() if kind.split()[1][0] != "2"})

    def expected(self, queue: str) -> tuple[int, int]:
        """Least and most messages the queue can hold now that no request is under way.

        So what was ever kept or seen is still there if nobody asked for its ack, also if it was delivered before.
        """
        sent = [sending for sending in self.sendings if sending.queue == queue]
        attempted = sum(len(sending.bodies) for sending in sent)
        there = {message_id for sending in sent for message_id in sending.message_ids or ()}
        acked: set[int] = set()
        perhaps: set[int] = set()
        for delivery in self.deliveries:
            if delivery.queue != queue:
                continue
            there.add(delivery.message_id)
            if delivery.end == ACKED:
                acked.add(delivery.message_id)
            elif delivery.end == UNKNOWN and delivery.wish == "ack":
                perhaps.add(delivery.message_id)
        return len(there - acked - perhaps), attempted - len(acked)

    def count(self, queue: str, counted: int) -> None:
        """The queue says that it holds so many messages, and no request is under way."""
        self.counts.append(Count(queue, counted, *self.expected(queue)))


def check(history: History, *, drained: bool) -> Findings:
    """Look for everything that must not be. `drained`: every queue was emptied, so that what is missing is lost."""
    violations = [f"answer: {times} times {told}" for told, times in sorted(Counter(history.surprises).items())]
    for count in history.counts:
        if not count.lowest <= count.counted <= count.highest:
            violations.append(
                f"count: {count.queue} says {count.counted} messages, but there are {count.lowest} to {count.highest}"
            )
    queues = sorted({each.queue for each in history.sendings} | {each.queue for each in history.receivings})
    found = Findings(violations, sum(history.answers.values()), 0, 0, 0, Counter(), 0)
    for queue in queues:
        _check_queue(
            [sending for sending in history.sendings if sending.queue == queue],
            [receiving for receiving in history.receivings if receiving.queue == queue],
            found,
            drained=drained,
        )
    return found


def _check_queue(sendings: list[Sending], receivings: list[Receiving], found: Findings, *, drained: bool) -> None:
    attempted = {body for sending in sendings for body in sending.bodies}
    kept = {body for sending in sendings if sending.message_ids is not None for body in sending.bodies}
    messages: dict[int, list[Delivery]] = defaultdict(list)
    for receiving in receivings:
        for delivery in receiving.deliveries:
            messages[delivery.message_id].append(delivery)
    seen = {delivery.body for deliveries in messages.values() for delivery in deliveries}

    found.messages += len(attempted)
    lost = kept - seen if drained else set()
    found.lost += len(lost)
    _tell(found, "lost", "was kept and never delivered", lost)
    unexpected = seen - attempted
    found.unexpected += len(unexpected)
    _tell(found, "unexpected", "was delivered and never sent", unexpected)

    _check_identities(sendings, messages, found)
    kinds = {body: kind for sending in sendings for body, kind in zip(sending.bodies, sending.kinds, strict=False)}
    unseen = 0
    for deliveries in messages.values():
        deliveries.sort(key=lambda delivery: (delivery.attempt, delivery.received_s))
        unseen += _check_message(deliveries, found)
    unseen -= _check_unseen(sendings, kinds, messages, receivings, found)
    _explain_unseen(receivings, unseen, found)
    _check_order_of_sends(sendings, found)
    _check_filters(kinds, receivings, found)
    if any(sending.group for sending in sendings):
        _check_groups(sendings, receivings, found)
    elif any(sending.delay_s for sending in sendings):
        _check_delays(sendings, messages, found)
    else:
        _check_order_of_receives(kinds, receivings, found)
        _check_empty_receives(sendings, kinds, messages, receivings, found)


def _tell(found: Findings, name: str, what: str, subjects: Iterable[object]) -> None:
    examples = sorted(map(str, subjects))
    if examples:
        shown = ", ".join(examples[:SHOWN_MAX])
        found.violations.append(f"{name}: {len(examples)} times a message {what}: {shown}")


def _check_identities(sendings: list[Sending], messages: dict[int, list[Delivery]], found: Findings) -> None:
    """A message has one id and one body, and a send takes effect once however often it was retried."""
    ids: dict[str, set[int]] = defaultdict(set)
    for sending in sendings:
        for body, message_id in zip(sending.bodies, sending.message_ids or (), strict=False):
            ids[body].add(message_id)
    for message_id, deliveries in messages.items():
        for delivery in deliveries:
            ids[delivery.body].add(message_id)
    _tell(found, "twice", "stands under several ids", (body for body, numbers in ids.items() if len(numbers) > 1))
    bodies: dict[int, set[str]] = defaultdict(set)
    for body, numbers in ids.items():
        for number in numbers:
            bodies[number].add(body)
    _tell(found, "mixed", "shares its id with another", (number for number, told in bodies.items() if len(told) > 1))


def _check_message(deliveries: list[Delivery], found: Findings) -> int:
    """The deliveries of one message, by attempt: each after the first needs a cause, and none may overlap.

    Returns how many attempts no consumer saw.
    """
    unseen = deliveries[0].attempt - 1
    for earlier, later in pairwise(deliveries):
        unseen += max(0, later.attempt - earlier.attempt - 1)
        if later.attempt == earlier.attempt:
            if later.receipt != earlier.receipt:
                _violate(found, "attempt twice", earlier, later)
        elif earlier.end == ACKED:
            _violate(found, "acked, then delivered", earlier, later)
        elif later.received_s < earlier.held_until_s:
            _violate(found, "two leases overlap", earlier, later)
        elif later.received_s < earlier.returns_s:
            _violate(found, "came back before its delay was over", earlier, later)
        else:
            found.duplicates[_cause(earlier)] += 1
    for delivery in deliveries:
        if delivery.end == STALE and delivery.end_known_s < delivery.lease_ends_s:
            found.violations.append(f"a lease ended early: {_told(delivery)}")
    return unseen


def _cause(earlier: Delivery) -> str:
    match earlier.end:
        case "nacked":
            return "nacked"
        case "unknown":
            return f"{earlier.wish} unanswered"
        case "died":
            return "consumer died"
        case _:
            return "lease expired"


def _explain_unseen(receivings: list[Receiving], unseen: int, found: Findings) -> None:
    """Deliveries that no consumer saw are explained by receives whose answers were lost."""
    explained = sum(each.messages_max - len(each.deliveries) for each in receivings if each.is_unsure)
    found.duplicates["receive unanswered"] += min(unseen, explained)
    if unseen > explained:
        found.unexplained += unseen - explained
        found.violations.append(f"unexplained: {unseen} deliveries that nobody saw, at most {explained} were lost")


def _check_unseen(
    sendings: list[Sending],
    kinds: dict[str, str],
    messages: dict[int, list[Delivery]],
    receivings: list[Receiving],
    found: Findings,
) -> int:
    """A delivery that nobody saw is that of a receive of its own, which wanted the message, and its lease lasted.

    Returns how many are not.
    """
    unexplained = 0
    asked_s = {body: sending.asked_s for sending in sendings for body in sending.bodies}
    unsure_s = {
        kind: sorted(each.asked_s for each in receivings if each.is_unsure and each.wants(kind))
        for kind in {"", *kinds.values()}
    }
    for deliveries in messages.values():
        body, attempt = deliveries[0].body, 0
        ready_s = asked_s.get(body, -inf)
        for delivery in deliveries:
            unseen, leased_s = delivery.attempt - attempt - 1, delivery.lease_s * (1 - SLEW)
            asked = bisect_right(unsure_s[kinds.get(body, "")], delivery.received_s - leased_s)
            if unseen > 0 and delivery.received_s < ready_s + unseen * leased_s:
                found.violations.append(f"a lease that nobody saw ended early: {_told(delivery)}")
            elif unseen > asked:
                unexplained += unseen - asked
                found.violations.append(f"unexplained: {_told(delivery)}, {unseen} of them by {asked} lost receives")
            attempt, ready_s = delivery.attempt, delivery.returns_s
    found.unexplained += unexplained
    return unexplained


def _violate(found: Findings, name: str, earlier: Delivery, later: Delivery) -> None:
    found.unexplained += 1
    found.violations.append(f"{name}: {_told(earlier)}, then {_told(later)}")


def _told(delivery: Delivery) -> str:
    text = (
        f"{delivery.queue}/{delivery.message_id} attempt {delivery.attempt}, asked {delivery.asked_s:.3f}, "
        f"received {delivery.received_s:.3f}, leased for {delivery.lease_s:g} s, {delivery.end}"
    )
    return text if delivery.end_asked_s == inf else f"{text} ({delivery.wish} asked {delivery.end_asked_s:.3f})"


def _check_order_of_sends(sendings: list[Sending], found: Findings) -> None:
    """What was sent after another send was answered stands behind it; a batch stands together, in its order."""
    known = [sending for sending in sendings if sending.message_ids is not None]
    for sending in known:
        first = sending.message_ids[0]  # type: ignore[index]
        if sending.message_ids != list(range(first, first + len(sending.bodies))):
            found.violations.append(f"order: a batch got the ids {sending.message_ids}")
    spans = [(each.asked_s, each.answered_s, each.message_ids[0], each.message_ids[-1]) for each in known]  # type: ignore[index]
    _check_order(spans, "sent", found)


def _check_filters(kinds: dict[str, str], receivings: list[Receiving], found: Findings) -> None:
    """What comes through a filter was sent as what it wants, and everything is still of the kind it was sent as."""
    for receiving in receivings:
        for delivery in receiving.deliveries:
            kind = kinds.get(delivery.body, "")
            if delivery.kind != kind:
                found.violations.append(f"filter: {_told(delivery)} was sent as {kind!r} and came as {delivery.kind!r}")
            if not receiving.wants(kind):
                wanted = ", ".join(sorted(receiving.wanted or ()))
                found.violations.append(f"filter: {_told(delivery)} is {kind!r}, but wanted was only {wanted}")


def _check_order_of_receives(kinds: dict[str, str], receivings: list[Receiving], found: Findings) -> None:
    """What was never delivered before comes in the order of ids, in an answer and from one answer to the next.

    So after an answer nothing comes that stands before any of it and was wanted then, with whatever filter it is asked.
    """
    for receiving in receivings:
        ids = [delivery.message_id for delivery in receiving.deliveries]
        if ids != sorted(ids):
            found.violations.append(f"order: one receive gave {ids[:20]}")
    for kind in sorted(set(kinds.values()) or {""}):
        spans = []
        for receiving in receivings:
            new = [delivery for delivery in receiving.deliveries if delivery.attempt == 1]
            if new:
                lowest = min((each.message_id for each in new if kinds.get(each.body, "") == kind), default=ID_END)
                highest = max(each.message_id for each in new) if receiving.wants(kind) else -1
                spans.append((receiving.asked_s, receiving.answered_s, lowest, highest))
        _check_order(spans, "received", found)


def _check_empty_receives(
    sendings: list[Sending],
    kinds: dict[str, str],
    messages: dict[int, list[Delivery]],
    receivings: list[Receiving],
    found: Findings,
) -> None:
    """Who is told that nothing is there was asking when nothing was that it wants.

    What came for the first time afterwards, and was kept before it asked, was there all the while.
    """
    kept_s = {number: each.answered_s for each in sendings for number in each.message_ids or ()}
    waits: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for number, deliveries in messages.items():
        first = min(deliveries, key=lambda delivery: delivery.attempt)
        if first.attempt == 1 and number in kept_s:
            waits[kinds.get(first.body, "")].append((kept_s[number], first.asked_s, number))
    empty = [receiving for receiving in receivings if receiving.says_nothing_is_there]
    for kind, there in sorted(waits.items()):
        there.sort()
        begins = [begin_s for begin_s, _, _ in there]
        longest = list(accumulate(there, _longer))
        for receiving in empty:
            position = bisect_right(begins, receiving.asked_s)
            if position and receiving.wants(kind) and longest[position - 1][1] > receiving.answered_s:
                since_s, until_s, number = longest[position - 1]
                found.violations.append(
                    f"passed over: nothing was there at {receiving.asked_s:.3f} to {receiving.answered_s:.3f}, "
                    f"but {number} was, from {since_s:.3f} to {until_s:.3f}"
                )


def _longer(one: tuple[float, float, int], other: tuple[float, float, int]) -> tuple[float, float, int]:
    return one if one[1] >= other[1] else other


def _check_order(spans: list[tuple[float, float, int, int]], what: str, found: Findings) -> None:
    """Each span (begun, ended, lowest id, highest id) begun after another had ended lies wholly above it."""
    ended = sorted(spans, key=lambda span: span[1])
    position, highest, holder = 0, -1, None
    for span in sorted(spans):
        while position < len(ended) and ended[position][1] < span[0]:
            if ended[position][3] > highest:
                highest, holder = ended[position][3], ended[position]
            position += 1
        if span[2] < highest:
            assert holder is not None
            found.violations.append(
                f"order: {what} {span[2]} at {span[0]:.3f} to {span[1]:.3f}, "
                f"after {highest} was, at {holder[0]:.3f} to {holder[1]:.3f}"
            )


def _check_delays(sendings: list[Sending], messages: dict[int, list[Delivery]], found: Findings) -> None:
    """Nothing comes before the delay with which it was sent is over."""
    due_s = {body: each.asked_s + each.delay_s * (1 - SLEW) for each in sendings for body in each.bodies}
    for deliveries in messages.values():
        first = deliveries[0]
        if first.received_s < due_s.get(first.body, -inf):
            found.violations.append(f"came before its delay was over: {_told(first)}")


def _check_groups(sendings: list[Sending], receivings: list[Receiving], found: Findings) -> None:
    """In a fifo queue, a group's messages come in strict order.

    So one batch of them is in flight at a time: of two, the later one's messages would have come before the earlier
    one's were gone.
    """
    groups: dict[str, set[int]] = defaultdict(set)
    batches: dict[str, list[list[Delivery]]] = defaultdict(list)
    gone_s: dict[int, float] = defaultdict(lambda: inf)
    sent = {body: sending.group for sending in sendings for body in sending.bodies}
    for sending in sendings:
        groups[sending.group].update(sending.message_ids or ())
    for receiving in receivings:
        taken: dict[str, list[Delivery]] = defaultdict(list)
        for delivery in receiving.deliveries:
            if delivery.group != sent.get(delivery.body, delivery.group):
                found.violations.append(f"group: {_told(delivery)} is of {sent[delivery.body]}, not {delivery.group}")
            groups[delivery.group].add(delivery.message_id)
            taken[delivery.group].append(delivery)
            gone_s[delivery.message_id] = min(gone_s[delivery.message_id], delivery.gone_s)
        for name, batch in taken.items():
            batches[name].append(batch)
    for name, ids in groups.items():
        _check_group_order(name, sorted(ids), gone_s, batches[name], found)


def _check_group_order(
    name: str, ids: list[int], gone_s: dict[int, float], batches: list[list[Delivery]], found: Findings
) -> None:
    """Whatever stands before a message of its group is gone when it comes, or comes with it and before it."""
    for batch in batches:
        numbers = [delivery.message_id for delivery in batch]
        if numbers != sorted(numbers):
            found.violations.append(f"group order: one receive gave {numbers[:20]} of {name}")
        passed = [
            number
            for number in ids[: bisect_left(ids, max(numbers))]
            if gone_s[number] > batch[0].received_s and number not in numbers
        ]
        if passed:
            found.violations.append(f"group order: {_told(batch[-1])} came before {passed[:SHOWN_MAX]} of {name}")
