"""Rates, as the generic cell rate algorithm keeps them: one number, the theoretical arrival time, says it all.

After ITU-T I.371, appendix A (virtual scheduling): each delivery moves `served_us` on by the time between two
deliveries at the agreed rate; as long as it is not further ahead of now than the burst allows, more may be delivered.
Whole microseconds, so that every replica counts the same.
"""

from __future__ import annotations

from storage.settings import Rate

UNLIMITED = 1 << 62


def _step_us(rate: Rate) -> int:
    return max(1, rate.per_ms * 1000 // rate.messages)


def allowed(rate: Rate | None, served_us: int, now_ms: int) -> int:
    """How many messages may be delivered now."""
    if rate is None:
        return UNLIMITED
    step_us, now_us = _step_us(rate), now_ms * 1000
    return max(0, (now_us - max(served_us, now_us)) // step_us + (rate.burst or rate.messages))


def served(rate: Rate | None, served_us: int, now_ms: int, count: int) -> int:
    """The theoretical arrival time after `count` more deliveries."""
    return 0 if rate is None else max(served_us, now_ms * 1000) + count * _step_us(rate)


def next_ms(rate: Rate, served_us: int, messages: int = 1) -> int:
    """When the next so many messages, no more than the burst, may be delivered after the burst is used up."""
    due_us = served_us - ((rate.burst or rate.messages) - messages) * _step_us(rate)
    return -(-due_us // 1000)
