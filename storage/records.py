"""The map of a shard's state: every key and every record, in prose. Keys are big-endian, so that order is meaning.

    m                    Shard      what belongs to no queue: the clock, the next queue number, counts
    q NAME               number     the name of a queue → its number (u32)
    n NUMBER             Queue      a queue: settings, counts, the next message id
    c NUMBER CHUNK       Chunk      messages of one queue that came in one log entry, and where each stands
    r NUMBER CHUNK       -          the chunk has ready messages; the first such key is what is received next
    d DUE KIND SUBJECT   -          a timer: at DUE (cluster milliseconds) the pulse does something (below)
    e INDEX              u32        how many chunks have their bodies in the log entry INDEX
    s SESSION            Session    a gateway's run: up to where it has its answers, when it was last heard
    o SESSION SEQ        [bytes]    outcomes of the session's operations SEQ, SEQ + 1, …
    k KEY                KeyMemory  the outcome of the operation a client named KEY
    M                    -          the members of the cluster: the engine's, not the rules' (`cluster.membership`)

A *chunk* is named by the id of its first message: message `id` lies in the chunk with the greatest name ≤ `id`, at
position `id - name`. Its *segments* say where its messages stand; a position in no segment is gone (acked or expired).
A queue's number changes when it is purged, so that purging is instant; what the old number held is cleaned by pulses.

Timers by kind:
    C NUMBER CHUNK   leases or delays end in this chunk
    G NUMBER         remove what is left of a purged or deleted queue
    K KEY            forget an idempotency key
    R NAME           drop what was kept longer than the queue's retention
    S SESSION        forget a gateway that has been silent

Invariants, checked by the model test after every step:
    `r` exists for a chunk ⇔ one of its segments is ready;  `d … C` exists for exactly the `due_ms` of its segments
    a queue's ready + leased + delayed = the messages in its chunks' segments;  bytes = the sum of their sizes
    `e INDEX` = the number of chunks whose `index` it is;  a chunk without segments does not exist
"""

from __future__ import annotations

import struct

import msgspec

from storage.settings import QueueSettings

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_NUMBER_CHUNK = struct.Struct(">IQ")

PRESENT = b"\x01"
SHARD_KEY = b"m"
MEMBERSHIP_KEY = b"M"
QUEUE_NAMES = b"q"
TIMERS = b"d"
ENTRIES = b"e"
SESSIONS = b"s"

TIMER_CHUNK = b"C"
TIMER_GRAVE = b"G"
TIMER_KEY = b"K"
TIMER_RETENTION = b"R"
TIMER_SESSION = b"S"


class Shard(msgspec.Struct, array_like=True):
    """What belongs to no queue. `clock_ms` never runs back."""

    clock_ms: int = 0
    next_number: int = 1
    queues: int = 0
    keys: int = 0


class Queue(msgspec.Struct, array_like=True):
    """A queue.

    `next_id` is the id of the next message sent. `retention_due_ms` is its pending retention timer, 0 for none; chunks
    named below `swept_id` have been through retention: what they still hold is dropped when its lease or delay ends.
    """

    name: str
    number: int
    settings: QueueSettings
    created_ms: int
    next_id: int = 1
    ready: int = 0
    leased: int = 0
    delayed: int = 0
    bytes: int = 0
    retention_due_ms: int = 0
    swept_id: int = 0


class Segment(msgspec.Struct, array_like=True):
    """`count` messages from position `first` on that stand alike.

    ready: token 0, due_ms 0 · leased: token ≠ 0, until due_ms · delayed: token 0, until due_ms.
    `attempts` counts deliveries so far.
    """

    first: int
    count: int
    attempts: int = 0
    token: int = 0
    due_ms: int = 0


class Chunk(msgspec.Struct, array_like=True):
    """Messages of one queue from one log entry.

    `blocks` are where their bodies lie in the entry, as (offset, count); `sizes` the bytes of each (little-endian u32),
    so that settling a message reads nothing of the log; `segments` where they stand, in order.
    """

    index: int
    sent_ms: int
    blocks: list[tuple[int, int]]
    sizes: bytes
    segments: list[Segment]

    @property
    def count(self) -> int:
        """How many messages the chunk had when it was sent."""
        return len(self.sizes) // 4


class Session(msgspec.Struct, array_like=True):
    """A gateway's run.

    It has its answers to every `seq` below `below`; `heard_ms` is when it last proposed; `top` the greatest `seq` whose
    outcome was remembered.
    """

    below: int = 0
    heard_ms: int = 0
    top: int = 0


class KeyMemory(msgspec.Struct, array_like=True):
    """What is remembered under an `Idempotency-Key`: the digest of its request, and the encoded outcome."""

    fingerprint: bytes
    outcome: bytes


encode = msgspec.msgpack.Encoder().encode
decode_shard = msgspec.msgpack.Decoder(Shard).decode
decode_queue = msgspec.msgpack.Decoder(Queue).decode
decode_chunk = msgspec.msgpack.Decoder(Chunk).decode
decode_session = msgspec.msgpack.Decoder(Session).decode
decode_key_memory = msgspec.msgpack.Decoder(KeyMemory).decode
decode_run = msgspec.msgpack.Decoder(list[bytes]).decode


def u32(value: int) -> bytes:
    """Four bytes that sort as the number does."""
    return _U32.pack(value)


def u64(value: int) -> bytes:
    """Eight bytes that sort as the number does."""
    return _U64.pack(value)


def read_u32(data: bytes) -> int:
    """The number `u32` made these bytes from."""
    return int(_U32.unpack(data)[0])


def read_u64(data: bytes) -> int:
    """The number `u64` made these bytes from."""
    return int(_U64.unpack(data)[0])


def name_key(name: str) -> bytes:
    """Key of a queue's name."""
    return QUEUE_NAMES + name.encode()


def queue_key(number: int) -> bytes:
    """Key of a queue's record."""
    return b"n" + _U32.pack(number)


def chunk_prefix(number: int) -> bytes:
    """What the keys of a queue's chunks begin with."""
    return b"c" + _U32.pack(number)


def chunk_key(number: int, chunk_id: int) -> bytes:
    """Key of a chunk."""
    return b"c" + _NUMBER_CHUNK.pack(number, chunk_id)


def ready_prefix(number: int) -> bytes:
    """What the keys of a queue's ready chunks begin with."""
    return b"r" + _U32.pack(number)


def ready_key(number: int, chunk_id: int) -> bytes:
    """Key that says that a chunk has ready messages."""
    return b"r" + _NUMBER_CHUNK.pack(number, chunk_id)


def entry_key(index: int) -> bytes:
    """Key of the count of chunks that live in a log entry."""
    return ENTRIES + _U64.pack(index)


def session_key(session: int) -> bytes:
    """Key of a session."""
    return SESSIONS + _U64.pack(session)


def run_prefix(session: int) -> bytes:
    """What the keys of a session's remembered outcomes begin with."""
    return b"o" + _U64.pack(session)


def memory_key(key: bytes) -> bytes:
    """Key of what is remembered under an idempotency key."""
    return b"k" + key


def timer_key(due_ms: int, kind: bytes, subject: bytes) -> bytes:
    """Key of a timer."""
    return TIMERS + _U64.pack(due_ms) + kind + subject


def chunk_timer_key(due_ms: int, number: int, chunk_id: int) -> bytes:
    """Key of the timer for leases or delays that end at `due_ms` in a chunk."""
    return timer_key(due_ms, TIMER_CHUNK, _NUMBER_CHUNK.pack(number, chunk_id))


def read_timer(key: bytes) -> tuple[int, bytes, bytes]:
    """A timer's due time, kind and subject."""
    return int(_U64.unpack_from(key, 1)[0]), key[9:10], key[10:]


def read_chunk_subject(subject: bytes) -> tuple[int, int]:
    """The queue number and chunk id in the subject of a chunk's timer."""
    number, chunk_id = _NUMBER_CHUNK.unpack(subject)
    return number, chunk_id
