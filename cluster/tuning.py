"""The engine's times and bounds, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tuning:
    """How patient and how greedy the engine is. Times in seconds, sizes in bytes."""

    heartbeat_s: float = 0.05
    """Between heartbeats of an idle leader: a dozen may be late before anyone doubts it."""

    election_min_s: float = 0.6
    """Silence after which a leader may be doubted, and a leader without a majority gives up. Longer than a busy
    machine keeps a process waiting: elections should come from failures, not from load."""

    election_max_s: float = 1.2
    """Silence after which it surely is: each follower picks a moment between the two, so that one is first."""

    jitter_s: float = 0.05
    """Followers that lost their connection to the leader campaign at a random moment within this time."""

    retry_s: float = 0.15
    """A campaign that was not won is tried again after one to two times this: several round trips and fsyncs."""

    @property
    def candidacy_s(self) -> float:
        """No campaign lasts longer: votes that arrive later elect nobody."""
        return 2 * self.retry_s

    transfer_s: float = 1.0
    """A leader that hands over holds proposals back for so long at most, then goes on leading."""

    resend_s: float = 3.0
    """Entries not acknowledged for so long are sent again, on a connection that is supposed to lose nothing."""

    batch_bytes: int = MIB
    """Payload in one message, one larger entry excepted."""

    batch_entries: int = 512
    """Entries in one message."""

    window_messages: int = 64
    """Messages with entries under way to one follower."""

    window_bytes: int = 16 * MIB
    """Payload under way to one follower, beyond which no further message is begun."""

    apply_entries: int = 64
    """Entries applied in one tick: bounds a tick, so that a long journal never silences a leader."""

    apply_bytes: int = 16 * MIB
    """Payload applied in one tick, one larger entry excepted."""

    cache_bytes: int = 16 * MIB
    """Payload of the journal's last entries kept in memory, so that followers close behind cost no reads."""

    journal_keep_entries: int = 100_000
    """Entries kept for followers that were away; one further behind gets a snapshot."""

    journal_keep_bytes: int = 256 * MIB
    """Payload kept for them, as far as it was added since the start."""

    compact_steps: int = 256
    """Entries compacted in one tick."""

    piece_bytes: int = MIB
    """Bytes in one piece of a snapshot."""

    window_pieces: int = 4
    """Pieces under way to one follower."""

    snapshot_stall_s: float = 10.0
    """A follower that takes no piece for so long begins again."""

    snapshot_linger_s: float = 10.0
    """How long a copy, and the journal after it, outlive the last follower that took it: it comes back for the rest."""
