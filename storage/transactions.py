"""Transactions: all steps in one entry, or none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from storage.codes import MALFORMED, STALE_RECEIPT
from storage.operations import (
    Ack,
    Committed,
    Extend,
    Nack,
    Outcome,
    Refused,
    Send,
    Sent,
    Settled,
    Transaction,
)
from storage.sending import Bodies
from storage.state import State
from storage.turn import Turn

T = TypeVar("T")
Step = Send | Ack | Nack | Extend


class Undo:
    """A state that remembers what was overwritten, so that it can be taken back."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._old: list[tuple[bytes, bytes | None]] = []
        self._released: list[int] = []

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        return self._state.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key`."""
        self._old.append((key, self._state.get(key)))
        self._state.put(key, value)

    def delete(self, key: bytes) -> None:
        """Forget `key`."""
        self._old.append((key, self._state.get(key)))
        self._state.delete(key)

    def first(self, prefix: bytes, start: bytes = b"") -> tuple[bytes, bytes] | None:
        """See `storage.state.State`."""
        return self._state.first(prefix, start)

    def floor(self, prefix: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """See `storage.state.State`."""
        return self._state.floor(prefix, end)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """See `storage.state.State`."""
        return self._state.scan(prefix, start)

    def entry(self, index: int) -> memoryview:
        """See `storage.state.State`."""
        return self._state.entry(index)

    def release(self, index: int) -> None:
        """Releasing cannot be taken back: it waits."""
        self._released.append(index)

    def keep(self) -> None:
        """What was done stays."""
        for index in self._released:
            self._state.release(index)

    def take_back(self) -> None:
        """Nothing has happened."""
        for key, value in reversed(self._old):
            if value is None:
                self._state.delete(key)
            else:
                self._state.put(key, value)


def all_or_nothing(turn: Turn, do: Callable[[], T | Refused]) -> T | Refused:
    """Do something of many steps. When it is refused, nothing has happened."""
    turn.write_back()
    state, held = turn.state, turn.savepoint()
    undo = turn.state = Undo(state)
    outcome = do()
    if isinstance(outcome, Refused):
        undo.take_back()
        turn.state = state
        turn.restore(held)
        return outcome
    turn.write_back()
    turn.state = state
    undo.keep()
    return outcome


def transact(
    turn: Turn, operation: Transaction, bodies: Bodies, do: Callable[[Turn, Step, Bodies], Outcome]
) -> Outcome:
    """Do all steps, or nothing. `do` does one."""
    sends = [step for step in operation.steps if isinstance(step, Send)]
    if len(operation.block_bytes) != len(sends) or sum(operation.block_bytes) != len(bodies.block):
        return Refused(MALFORMED)

    def steps() -> Committed | Refused:
        outcomes: list[Sent | Settled] = []
        offset, blocks = 0, iter(operation.block_bytes)
        for number, step in enumerate(operation.steps):
            size = next(blocks) if isinstance(step, Send) else 0
            mine = Bodies(bodies.block[offset : offset + size], bodies.offset + offset)
            offset += size
            outcome = do(turn, step, mine)
            if isinstance(outcome, Refused):
                return msgspec.structs.replace(outcome, step=number)
            if isinstance(outcome, Settled) and outcome.stale:
                return Refused(STALE_RECEIPT, step=number, stale=outcome.stale)
            assert isinstance(outcome, Sent | Settled)
            outcomes.append(outcome)
        return Committed(outcomes)

    return all_or_nothing(turn, steps)
