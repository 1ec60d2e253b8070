"""Snapshots: how a follower gets what is no longer in the leader's journal.

The leader makes one copy of its store beside its ticks and streams it to every follower that needs it, a few pieces
ahead of what the follower has taken. Nothing is resumed: after a lost connection or a long silence the stream begins
again. An installed snapshot is not acknowledged; it shows when the follower, restarted on it, answers its next probe.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.messages import Piece, PieceTaken
from cluster.tuning import Tuning
from storage.state import Copy, Install, Store

RESTART_S = 1.0
"""Pause before a refused stream begins again, in which the answers to its last pieces run out."""


@dataclass(slots=True)
class _Stream:
    heard_s: float
    resume_s: float = 0.0
    sent: int = 0
    taken: int = 0


class Outgoing:
    """The leader's side: one copy, any number of streams."""

    def __init__(self, store: Store, tuning: Tuning) -> None:
        self._store = store
        self._tuning = tuning
        self._copy: Copy | None = None
        self._floor = 0
        self._used_s = 0.0
        self._streams: dict[str, _Stream] = {}

    @property
    def floor(self) -> int | None:
        """The journal must be kept from here on while the copy is in use: its takers come back for what follows it."""
        return self._floor if self._copy is not None else None

    def pieces(self, node: str, term: int, durable_applied_index: int, now_s: float) -> list[Piece]:
        """What to send `node` now; nothing while the copy is being made or the window is full."""
        if self._copy is None:
            self._copy, self._floor = self._store.start_copy(), durable_applied_index
        stream = self._streams.get(node)
        if stream is None or now_s - stream.heard_s > self._tuning.snapshot_stall_s:
            stream = self._streams[node] = _Stream(now_s)
        self._used_s = now_s
        if not self._copy.ready:
            stream.heard_s = now_s
            return []
        found: list[Piece] = []
        (index, index_term), size = self._copy.applied, self._copy.size
        window = self._tuning.window_pieces * self._tuning.piece_bytes
        while now_s >= stream.resume_s and stream.sent < size and stream.sent - stream.taken < window:
            data = self._copy.read(stream.sent, self._tuning.piece_bytes)
            found.append(Piece(term, index, index_term, size, stream.sent, data))
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
            self._streams[node] = _Stream(now_s, resume_s=now_s + RESTART_S)
        elif stream.taken < answer.offset <= stream.sent:
            stream.taken = answer.offset
        return None

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
        self._taken = 0

    @property
    def is_whole(self) -> bool:
        """Whether every piece is here."""
        return self._install is not None and self._taken == self._expected[2]

    def take(self, piece: Piece, commit_index: int) -> PieceTaken:
        """Take a piece in and say what to answer. A snapshot at or below the commit index is not wanted."""
        return PieceTaken(piece.term, piece.index, self._take(piece, commit_index))

    def _take(self, piece: Piece, commit_index: int) -> int:
        if piece.index <= commit_index:
            self.abandon()
            return piece.size
        expected = (piece.index, piece.index_term, piece.size)
        if piece.offset == 0:
            self.abandon()
            self._install, self._expected, self._taken = self._store.start_install(piece.size), expected, 0
        if self._install is None or expected != self._expected or self.is_whole:
            return -1
        try:
            self._install.write(piece.offset, piece.data)
        except ValueError:
            self.abandon()
            return -1
        self._taken = piece.offset + len(piece.data)
        return self._taken

    def finish(self, commit_index: int) -> bool:
        """Put the whole snapshot in the store's place. False if it is not worth it or not what it was said to be."""
        if self._install is None:
            return False
        index, term, _ = self._expected
        if index <= commit_index:
            self.abandon()
            return False
        try:
            self._install.finish((index, term))
        except ValueError:
            self.abandon()
            return False
        self._install = None
        return True

    def abandon(self) -> None:
        """Forget the pieces."""
        if self._install is not None:
            self._install.abandon()
        self._install = None
