"""What a leader proposes of its own accord when it is due: that leases and delays end, steps of redrives, the times of
schedules, and what was found for filters.

Of each kind one operation is under way at a time: what is due next is seen by what the one before has done.
"""

from __future__ import annotations

from math import inf

from cluster.occurrences import Occurrences
from cluster.sifting import Sifting
from storage import queries, redrive_look
from storage.limits import PULSE_STEPS_MAX
from storage.operations import Operation, Pulse, encode_item
from storage.redrive_operations import StepRedrive
from storage.schedule_operations import Occur
from storage.sift_operations import Sift
from storage.state import State


class Duties:
    """The duties of one leader, and which of them are under way."""

    def __init__(self, state: State, occurrences: Occurrences, sifting: Sifting) -> None:
        self._state, self._occurrences, self._sifting = state, occurrences, sifting
        self._pulsing = self._redriving = False

    def due(self, now_ms: int, trouble: str) -> list[bytes]:
        """Items to propose now, and no others before they are `done`. `trouble`: why nothing can be sent, or empty."""
        items: list[bytes] = []
        due_ms = None if self._pulsing else queries.next_due_ms(self._state)
        if due_ms is not None and due_ms <= now_ms:
            self._pulsing = True
            items.append(encode_item(0, 0, Pulse(PULSE_STEPS_MAX)))
        items.extend(self._occurrences.due(now_ms, trouble))
        step = None if self._redriving else redrive_look.next_step(self._state, now_ms)
        if step is not None:
            self._redriving = True
            items.append(encode_item(0, 0, step))
        items.extend(self._sifting.next())
        return items

    def next_ms(self) -> float:
        """When there is something to propose (cluster time), of what is not under way; 0: at once; inf: nothing."""
        dues_ms = (
            None if self._pulsing else queries.next_due_ms(self._state),
            None if self._redriving else redrive_look.next_due_ms(self._state),
            self._occurrences.next_ms(),
            0 if self._sifting.is_due else None,
        )
        return min((due_ms for due_ms in dues_ms if due_ms is not None), default=inf)

    def done(self, operation: Operation) -> None:
        """What was proposed is applied."""
        if type(operation) is Pulse:
            self._pulsing = False
        elif type(operation) is StepRedrive:
            self._redriving = False
        elif type(operation) is Sift:
            self._sifting.done()
        elif type(operation) is Occur:
            self._occurrences.done()
