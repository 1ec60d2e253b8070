"""Snapshots: how a follower gets what is no longer in the leader's journal.

The leader makes one copy of its store beside its ticks and streams it to every follower that needs it, a few pieces
ahead of what the follower has taken. Nothing is resumed: after a lost connection or a long silence the stream begins
again. The follower checks the whole copy beside its own ticks, however large it is, and then puts it in its store's
place at once. An installed snapshot is not acknowledged; it shows when the follower, restarted on it, answers its next
probe.

What cannot be had now is tried again later, after pauses that grow: a copy for which the leader's disk has no room, and
a snapshot that the follower has no room for or cannot use. Both are said once, and the follower reports its `trouble`.
A copy that came whole and is not fit for use is reason for the leader to doubt its own store, of which it was made, and
to make another: the store may be sound by now.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

import structlog

from cluster.messages import Piece, PieceTaken
from cluster.tuning import Tuning
from storage.migrations import FORMAT
from storage.state import Copy, CopyError, Install, Store

RESTART_S = 1.0
"""Pause before a stream begins again whose pieces did not fit together: the answers to its last ones run out in it."""
ALIVE_S = 1.0
"""How often a follower that checks a snapshot says that it is alive."""
RETRY_S = (5.0, 600.0)
"""Pause after something could not be had, from the first time to the last: each is twice the one before."""
BUSY_S = 5
"""Pause asked of a leader that begins again to send what is being checked."""

_log = structlog.get_logger()


class _Patience:
    """Pauses that grow while the same thing fails again and again."""

    def __init__(self) -> None:
        self._pause_s = RETRY_S[0]
        self.until_s = -inf
        self.trouble: str | None = None

    def failed(self, trouble: str, now_s: float) -> None:
        """It has failed: wait. What is known already is not logged again."""
        if trouble != self.trouble:
            _log.error("a snapshot failed", cause=trouble)
        self.trouble = trouble
        self.until_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, RETRY_S[1])

    def left_s(self, now_s: float) -> int:
        """Whole seconds still to wait, 0 for none."""
        return ceil(max(0.0, self.until_s - now_s))


@dataclass(slots=True)
class _Stream:
    heard_s: float
    resume_s: float = 0.0
    sent: int = 0
    taken: int = 0
    percent: int = 0


class Outgoing:
    """The leader's side: one copy, any number of streams."""

    def __init__(self, store: Store, tuning: Tuning) -> None:
        self._store = store
        self._tuning = tuning
        self._copy: Copy | None = None
        self._floor = 0
        self._used_s = 0.0
        self._streams: dict[str, _Stream] = {}
        self._patience = _Patience()

    @property
    def floor(self) -> int | None:
        """The journal must be kept from here on while the copy is in use: its takers come back for what follows it."""
        return self._floor if self._copy is not None else None

    def pieces(self, node: str, term: int, durable_applied_index: int, now_s: float) -> list[Piece]:
        """What to send `node` now; nothing while the copy is being made or the window is full."""
        stream = self._streams.get(node)
        if self._copy is None:
            if self._patience.left_s(now_s) or (stream is not None and now_s < stream.resume_s):
                return []
            self._copy, self._floor = self._store.start_copy(), durable_applied_index
        if stream is None or now_s - stream.heard_s > self._tuning.snapshot_stall_s:
            stream = self._streams[node] = _Stream(now_s)
        self._used_s = now_s
        try:
            if not self._copy.ready:
                stream.heard_s = now_s
                return []
        except CopyError as error:
            self._patience.failed(str(error), now_s)
            self.close()
            return []
        if self._patience.trouble is not None:
            self._patience = _Patience()
        found: list[Piece] = []
        (index, index_term), size = self._copy.applied, self._copy.size
        window = self._tuning.window_pieces * self._tuning.piece_bytes
        while now_s >= stream.resume_s and stream.sent < size and stream.sent - stream.taken < window:
            data = self._copy.read(stream.sent, self._tuning.piece_bytes)
            found.append(Piece(term, index, index_term, size, stream.sent, data, FORMAT))
            stream.sent += len(data)
        return found

    def taken(self, node: str, answer: PieceTaken, now_s: float) -> int | None:
        """`node` has answered a piece. Returns the index of its last entry if it has the whole snapshot now."""
        stream = self._streams.get(node)
        if stream is None or self._copy is None or not self._copy.ready or answer.index != self._copy.applied[0]:
            return None
        stream.heard_s = now_s
        if answer.offset == self._copy.size:
            del self._streams[node]
            return answer.index
        if answer.offset < 0:
            pause_s = min(-answer.offset * RESTART_S, RETRY_S[1])
            if answer.unfit:
                self.close()
            self._streams[node] = _Stream(now_s + pause_s, resume_s=now_s + pause_s)
        elif stream.taken < answer.offset <= stream.sent:
            stream.taken = answer.offset
            stream.percent = 100 * stream.taken // self._copy.size
        return None

    def percent(self, node: str) -> int | None:
        """How much of the copy `node` has taken, of a hundred; None if it is being sent none."""
        stream = self._streams.get(node)
        return stream.percent if stream is not None else None

    def leave(self, node: str) -> None:
        """The connection to `node` is gone, and its stream with it."""
        self._streams.pop(node, None)

    def expire(self, now_s: float) -> None:
        """Drop a copy that nobody has taken from for a while."""
        if self._copy is not None and now_s - self._used_s > self._tuning.snapshot_linger_s:
            self.close()

    def close(self) -> None:
        """Drop the copy and every stream."""
        if self._copy is not None:
            self._copy.close()
        self._copy = None
        self._streams.clear()


class Incoming:
    """The follower's side: at most one snapshot on its way in."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._install: Install | None = None
        self._expected = (0, 0, 0)
        self._term = 0
        self._taken = 0
        self._last_offset = 0
        self._told_s = 0.0
        self._failed_at = 0
        self._patience = _Patience()

    @property
    def trouble(self) -> str | None:
        """Why the last snapshot could not be had, or None."""
        return self._patience.trouble

    @property
    def _is_whole(self) -> bool:
        return self._install is not None and self._taken == self._expected[2]

    def take(self, piece: Piece, commit_index: int, now_s: float) -> PieceTaken:
        """Take a piece in and say what to answer. A snapshot at or below the commit index is not wanted."""
        try:
            return PieceTaken(piece.term, piece.index, self._take(piece, commit_index, now_s))
        except (CopyError, ValueError) as error:
            return self._failed(error, piece.term, piece.index, commit_index, now_s)

    def _take(self, piece: Piece, commit_index: int, now_s: float) -> int:
        if piece.index <= commit_index:
            self.abandon()
            return piece.size
        expected = (piece.index, piece.index_term, piece.size)
        if self._is_whole and expected == self._expected:
            return -BUSY_S
        if self._patience.left_s(now_s):
            return -self._patience.left_s(now_s)
        if piece.offset == 0:
            self.abandon()
            if piece.format > FORMAT:
                raise ValueError(
                    f"the leader's snapshot has format {piece.format}, this release knows formats up to {FORMAT}: "
                    "run the leader's release on this node, too"
                )
            self._install, self._expected, self._taken = self._store.start_install(piece.size), expected, 0
        if self._install is None or expected != self._expected or piece.offset != self._taken:
            self.abandon()
            return -1
        self._install.write(piece.offset, piece.data)
        self._term, self._last_offset, self._told_s = piece.term, piece.offset, now_s
        self._taken = piece.offset + len(piece.data)
        if not self._is_whole:
            return self._taken
        self._install.check(expected[:2])
        return piece.offset

    def step(self, commit_index: int, now_s: float) -> tuple[PieceTaken | None, bool]:
        """What to tell the leader beside answers, and whether the snapshot was put in the store's place just now."""
        if self._patience.trouble is not None and commit_index > self._failed_at:
            self._patience = _Patience()  # the log was enough after all
        if self._install is None or not self._is_whole:
            return None, False
        index, _, size = self._expected
        try:
            if not self._install.checked:
                if now_s - self._told_s < ALIVE_S:
                    return None, False
                self._told_s = now_s
                return PieceTaken(self._term, index, self._last_offset), False
        except (CopyError, ValueError) as error:
            return self._failed(error, self._term, index, commit_index, now_s), False
        taken = PieceTaken(self._term, index, size)
        if index <= commit_index:
            self.abandon()
            return taken, False
        self._install.finish()
        self._install = None
        return taken, True

    def _failed(self, error: Exception, term: int, index: int, commit_index: int, now_s: float) -> PieceTaken:
        """Give up for now. Returns what asks the leader to wait."""
        is_unfit = self._is_whole and isinstance(error, ValueError)
        self.abandon()
        self._failed_at = commit_index
        self._patience.failed(str(error), now_s)
        return PieceTaken(term, index, -self._patience.left_s(now_s), is_unfit)

    def abandon(self) -> None:
        """Forget the pieces."""
        if self._install is not None:
            self._install.abandon()
        self._install = None
