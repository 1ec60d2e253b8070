"""The checker is fed histories that are good, and histories that are bad in one way, and must say in which."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.chaos.history import (
    ACKED,
    DIED,
    NACKED,
    STALE,
    UNKNOWN,
    Count,
    Delivery,
    Findings,
    History,
    Receiving,
    Sending,
    check,
)


def sent(*bodies: str, ids: list[int] | None = None, at_s: float = 0.0) -> Sending:
    """A batch, asked at `at_s` and answered 0.1 s later."""
    return Sending("q", list(bodies), at_s, at_s + 0.1, ids)


def given(
    message_id: int, body: str, at_s: float, *, attempt: int = 1, end: str = ACKED, wish: str = "ack"
) -> Delivery:
    """A delivery asked at `at_s`, received 0.1 s later, leased for 10 s, and settled from 0.2 s to 0.3 s later."""
    receipt = f"{message_id}.{attempt}"
    return Delivery("q", message_id, attempt, body, receipt, at_s, at_s + 0.1, 10, end, wish, at_s + 0.2, at_s + 0.3)


def received(*deliveries: Delivery, unsure: bool = False) -> Receiving:
    first = deliveries[0]
    return Receiving("q", 10, first.asked_s, first.received_s, list(deliveries), unsure)


def unanswered(at_s: float) -> Receiving:
    return Receiving("q", 10, at_s, is_unsure=True)


def found(*events: Sending | Receiving, drained: bool = True) -> Findings:
    history = History(
        [event for event in events if isinstance(event, Sending)],
        [event for event in events if isinstance(event, Receiving)],
    )
    return check(history, drained=drained)


def test_a_good_history_has_no_violations() -> None:
    findings = found(
        sent("a", "b", ids=[1, 2]),
        sent("c", at_s=1),  # never answered, never seen
        sent("d", at_s=2),  # never answered, but seen
        received(given(1, "a", 3), given(2, "b", 3)),
        received(given(3, "d", 4)),
    )
    assert not findings.violations
    assert (findings.messages, findings.lost, findings.unexpected, findings.unexplained) == (4, 0, 0, 0)
    assert not +findings.duplicates


@pytest.mark.parametrize(
    ("earlier", "later_s", "cause"),
    [
        (given(1, "a", 1, end=DIED, wish=""), 11.0, "consumer died"),
        (given(1, "a", 1, end=UNKNOWN), 11.0, "ack unanswered"),
        (given(1, "a", 1, end=NACKED, wish="nack"), 1.2, "nacked"),
        (given(1, "a", 1, end=UNKNOWN, wish="nack"), 1.2, "nack unanswered"),
        (replace(given(1, "a", 1, end=STALE), end_asked_s=12.0, end_known_s=12.1), 11.0, "lease expired"),
    ],
)
def test_a_second_delivery_has_a_cause(earlier: Delivery, later_s: float, cause: str) -> None:
    findings = found(sent("a", ids=[1]), received(earlier), received(given(1, "a", later_s, attempt=2)))
    assert not findings.violations
    assert +findings.duplicates == Counter({cause: 1})


def test_attempts_that_nobody_saw_are_explained_by_receives_without_an_answer() -> None:
    events = (sent("a", ids=[1]), received(given(1, "a", 20, attempt=3)))
    findings = found(*events, unanswered(1), unanswered(5))
    assert not findings.violations
    assert +findings.duplicates == Counter({"receive unanswered": 2})
    findings = found(*events, unanswered(1))
    assert findings.unexplained == 1
    [told] = findings.violations
    assert "2 of them by 1 lost receives" in told


def test_a_receive_without_an_answer_explains_no_more_than_it_asked_for() -> None:
    bodies = [f"m{number}" for number in range(11)]
    again = [given(number, body, 20, attempt=2) for number, body in enumerate(bodies, 1)]
    events = (sent(*bodies, ids=list(range(1, 12))), received(*again), unanswered(1))
    findings = found(*events)
    assert findings.unexplained == 1
    assert findings.violations == ["unexplained: 11 deliveries that nobody saw, at most 10 were lost"]


def test_a_lease_may_be_extended_and_a_delayed_message_come_after_later_ones() -> None:
    delayed = replace(sent("b", ids=[2]), delay_s=3)
    findings = found(
        A,
        delayed,
        sent("c", ids=[3], at_s=0.2),
        received(given(3, "c", 1)),
        nothing(1.5),
        received(given(2, "b", 3)),
        received(replace(given(1, "a", 3, end=DIED, wish=""), extended_s=8)),
        received(given(1, "a", 18, attempt=2)),
    )
    assert not findings.violations


def test_a_lease_may_end_by_the_slew_of_the_cluster_clock_early_and_no_more() -> None:
    died = given(1, "a", 1, end=DIED, wish="")
    assert not found(sent("a", ids=[1]), received(died), received(given(1, "a", 10.81, attempt=2))).violations
    assert found(sent("a", ids=[1]), received(died), received(given(1, "a", 10.79, attempt=2))).violations


def test_an_attempt_that_nobody_saw_took_a_receive_of_its_own_and_a_whole_lease() -> None:
    died = given(1, "a", 1, end=DIED, wish="")

    def violations(*lost: Receiving, again_s: float) -> list[str]:
        again = given(1, "a", again_s, attempt=3)
        return found(
            of_kinds(A, "x"), through("x", received(died), "x"), through("", received(again), "x"), *lost
        ).violations

    assert not violations(through("x", unanswered(2)), again_s=20.71)
    assert not violations(unanswered(10), again_s=20.71)
    [told] = violations(unanswered(2), again_s=20.69)
    assert "a lease that nobody saw ended early" in told
    for lost in (through("y", unanswered(2)), unanswered(11)):
        [told] = violations(lost, again_s=20.71)
        assert "1 of them by 0 lost receives" in told


A = sent("a", ids=[1])
GIVEN = received(given(1, "a", 1))
BAD: dict[str, tuple[list[Sending | Receiving], str]] = {
    "a kept message is never seen": ([A, sent("b", ids=[2], at_s=1), GIVEN], "lost: 1 times a message was kept"),
    "a message was never sent": ([A, received(given(1, "a", 1), given(2, "z", 1))], "unexpected: 1 times"),
    "a send took effect twice": (
        [sent("a"), received(given(1, "a", 1)), received(given(2, "a", 2))],
        "twice: 1 times a message stands under several ids: a",
    ),
    "a message got another's body": (
        [sent("a", "b"), received(given(1, "a", 1, end=DIED, wish="")), received(given(1, "b", 20, attempt=2))],
        "mixed: 1 times a message shares its id with another: 1",
    ),
    "an acked message comes back": ([A, GIVEN, received(given(1, "a", 60, attempt=2))], "acked, then delivered"),
    "an acked message was acked under an earlier lease": (
        [A, received(given(1, "a", 60, attempt=1)), received(given(1, "a", 1, attempt=2))],
        "acked, then delivered",
    ),
    "two leases overlap": (
        [A, received(given(1, "a", 1, end=DIED, wish="")), received(given(1, "a", 5, attempt=2))],
        "two leases overlap",
    ),
    "two leases overlap, the first acked without an answer": (
        [A, received(given(1, "a", 1, end=UNKNOWN)), received(given(1, "a", 5, attempt=2))],
        "two leases overlap",
    ),
    "one attempt is given to two": (
        [A, GIVEN, received(replace(given(1, "a", 1.5), receipt="another"))],
        "attempt twice",
    ),
    "a nacked message comes back before its delay is over": (
        [
            A,
            received(replace(given(1, "a", 1, end=NACKED, wish="nack"), delay_s=5)),
            received(given(1, "a", 3, attempt=2)),
        ],
        "came back before its delay was over",
    ),
    "a lease that was extended ends as if it were not": (
        [
            A,
            received(replace(given(1, "a", 1, end=DIED, wish=""), extended_s=6)),
            received(given(1, "a", 14, attempt=2)),
        ],
        "two leases overlap",
    ),
    "an ack is stale although the lease was extended": (
        [
            A,
            received(replace(given(1, "a", 1, end=STALE), extended_s=6, end_known_s=14)),
            received(given(1, "a", 20, attempt=2)),
        ],
        "a lease ended early",
    ),
    "a message comes before the delay with which it was sent is over": (
        [replace(A, delay_s=3), received(given(1, "a", 2))],
        "came before its delay was over: q/1 attempt 1",
    ),
    "an ack is stale although the lease goes on": (
        [A, received(given(1, "a", 1, end=STALE)), received(given(1, "a", 20, attempt=2))],
        "a lease ended early",
    ),
    "a later send stands before an earlier one": (
        [
            sent("b", ids=[2]),
            sent("a", ids=[1], at_s=1),
            received(given(1, "a", 2), given(2, "b", 2)),
        ],
        "order: sent 1 at 1.000",
    ),
    "a batch is torn apart": (
        [sent("a", "b", ids=[1, 3]), received(given(1, "a", 1), given(3, "b", 1))],
        "order: a batch got the ids [1, 3]",
    ),
    "a receive is out of order": (
        [sent("a", "b", ids=[1, 2]), received(given(2, "b", 1), given(1, "a", 1))],
        "order: one receive gave [2, 1]",
    ),
    "a later receive gives what stood before": (
        [sent("a", "b", ids=[1, 2]), received(given(2, "b", 1)), received(given(1, "a", 2))],
        "order: received 1 at 2.000",
    ),
}


def of_kinds(sending: Sending, *kinds: str) -> Sending:
    return replace(sending, kinds=list(kinds))


def through(wanted: str, receiving: Receiving, *kinds: str) -> Receiving:
    """The same receive with a filter that wants these kinds (none: it has no filter), and of which kinds came what."""
    deliveries = [replace(each, kind=kind) for each, kind in zip(receiving.deliveries, kinds, strict=True)]
    return replace(receiving, deliveries=deliveries, wanted=frozenset(wanted) if wanted else None)


def nothing(at_s: float) -> Receiving:
    """A receive that was told, 0.1 s after it asked, that nothing is there."""
    return Receiving("q", 10, at_s, at_s + 0.1)


XYX = of_kinds(sent("a", "b", "c", ids=[1, 2, 3]), "x", "y", "x")
GONE = [through("", received(given(2, "b", 8), given(3, "c", 8)), "y", "x")]
BAD_FILTERS: dict[str, tuple[list[Sending | Receiving], str]] = {
    "a filter lets through what it does not want": (
        [XYX, through("x", received(given(1, "a", 1), given(2, "b", 1), given(3, "c", 1)), *"xyx")],
        "is 'y', but wanted was only x",
    ),
    "a message is of another kind than it was sent as": (
        [
            XYX,
            through("x", received(given(1, "a", 1), given(3, "c", 1)), *"xx"),
            through("", received(given(2, "b", 2)), "x"),
        ],
        "was sent as 'y' and came as 'x'",
    ),
    "what a filter skipped never comes": (
        [XYX, through("x", received(given(1, "a", 1), given(3, "c", 1)), *"xx")],
        "lost: 1 times a message was kept and never delivered: b",
    ),
    "what came through a filter comes again": (
        [
            XYX,
            through("x", received(given(1, "a", 1, end=DIED, wish="")), "x"),
            through("", received(given(1, "a", 2, attempt=2)), "x"),
            *GONE,
        ],
        "two leases overlap",
    ),
    "a filter gives what stood behind something that it wants": (
        [
            XYX,
            through("x", received(given(3, "c", 1)), "x"),
            through("", received(given(1, "a", 2), given(2, "b", 2)), *"xy"),
        ],
        "order: received 1 at 2.000",
    ),
    "nobody's filter holds a message back from a consumer without one": (
        [
            XYX,
            through("", received(given(2, "b", 1), given(3, "c", 1)), *"yx"),
            through("x", received(given(1, "a", 2)), "x"),
        ],
        "order: received 1 at 2.000",
    ),
    "a filter passes over something that it wants": (
        [XYX, through("x", nothing(1)), through("", received(given(1, "a", 2)), "x"), *GONE],
        "passed over: nothing was there at 1.000",
    ),
    "a consumer without a filter is told that nothing is there": (
        [A, nothing(1), received(given(1, "a", 2))],
        "passed over",
    ),
}


def test_filters_choose_and_the_rest_waits_for_others() -> None:
    findings = found(
        XYX,
        through("z", nothing(0.2)),  # nothing of that kind was there
        through("x", nothing(0.05)),  # asked before the messages were kept
        replace(through("x", nothing(0.3)), is_unsure=True),
        replace(through("x", nothing(0.4)), is_sifting=True),
        through("x", received(given(1, "a", 1), given(3, "c", 1)), *"xx"),
        through("x", nothing(0.95)),  # was still asking when they were taken
        through("x", nothing(2)),
        through("y", received(given(2, "b", 3, end=DIED, wish="")), "y"),
        through("y", nothing(4)),  # leased to somebody else
        through("", received(given(2, "b", 13, attempt=2)), "y"),
    )
    assert not findings.violations


def of_group(sending: Sending) -> Sending:
    return replace(sending, group="g")


def in_group(*deliveries: Delivery) -> Receiving:
    return received(*(replace(delivery, group="g") for delivery in deliveries))


AB = of_group(sent("a", "b", ids=[1, 2]))
BAD_GROUPS: dict[str, tuple[list[Sending | Receiving], str]] = {
    "two batches of a group are in flight": (
        [AB, in_group(given(1, "a", 1)), in_group(given(2, "b", 1.05))],
        "group order: q/2 attempt 1",
    ),
    "a message comes although one before it waits for its next attempt": (
        [
            AB,
            in_group(replace(given(1, "a", 1, end=NACKED, wish="nack"), delay_s=5)),
            in_group(given(2, "b", 3)),
            in_group(given(1, "a", 9, attempt=2)),
        ],
        "group order: q/2 attempt 1",
    ),
    "a message comes although one before it never did": (
        [AB, in_group(given(2, "b", 3)), in_group(given(1, "a", 5))],
        "group order: q/2 attempt 1",
    ),
    "a batch is out of order": ([AB, in_group(given(2, "b", 1), given(1, "a", 1))], "group order: one receive gave"),
    "a message is of another group": (
        [AB, in_group(given(1, "a", 1)), received(replace(given(2, "b", 3), group="h"))],
        "is of g, not h",
    ),
}


def test_groups_come_independently_of_each_other_and_again_after_a_lease() -> None:
    other = replace(sent("c", at_s=0.5, ids=[3]), group="h")
    findings = found(
        AB,
        other,
        in_group(replace(given(1, "a", 1, end=DIED, wish=""), group="g")),
        received(replace(given(3, "c", 1.05), group="h")),
        in_group(given(1, "a", 11, attempt=2, end=UNKNOWN), given(2, "b", 11)),
    )
    assert not findings.violations


@pytest.mark.parametrize("name", BAD | BAD_GROUPS | BAD_FILTERS)
def test_what_must_not_be_is_reported(name: str) -> None:
    events, words = (BAD | BAD_GROUPS | BAD_FILTERS)[name]
    violations = found(*events).violations
    assert len(violations) == 1, violations
    assert words in violations[0]


def test_nothing_is_called_lost_before_the_queues_are_drained() -> None:
    assert not found(A, drained=False).violations


def test_receives_under_way_at_once_may_come_in_any_order() -> None:
    late = Receiving("q", 10, 1.05, 1.2, [given(1, "a", 1.05)])
    assert not found(sent("a", "b", ids=[1, 2]), received(given(2, "b", 1)), late).violations


def test_a_count_must_lie_within_what_the_history_allows() -> None:
    history = History(
        [sent("a", "b", "c", ids=[1, 2, 3]), sent("d", at_s=1)],
        [received(given(1, "a", 1), given(2, "b", 1, end=UNKNOWN))],
    )
    assert history.expected("q") == (1, 3)
    history.counts = [Count("q", counted, *history.expected("q")) for counted in (0, 1, 3, 4)]
    violations = check(history, drained=False).violations
    assert violations == [
        "count: q says 0 messages, but there are 1 to 3",
        "count: q says 4 messages, but there are 1 to 3",
    ]


def test_what_was_seen_once_counts_until_its_ack_was_asked_for() -> None:
    """Else a message could vanish after it was nacked, as many times as sends without an answer were acked."""
    nacked = given(2, "b", 1, end=NACKED, wish="nack")
    history = History(
        [sent("a", ids=[1]), sent("b"), sent("c", at_s=1)],
        [received(nacked, given(3, "c", 1)), received(replace(given(1, "a", 0.5), end=STALE, end_known_s=13))],
    )
    assert history.expected("q") == (2, 2)
    history.counts = [Count("q", 0, *history.expected("q"))]
    assert check(history, drained=True).violations == ["count: q says 0 messages, but there are 2 to 2"]


def test_an_answer_that_no_rule_allows_is_reported() -> None:
    assert check(History(surprises=["send: 500 {}"] * 2), drained=True).violations == ["answer: 2 times send: 500 {}"]
