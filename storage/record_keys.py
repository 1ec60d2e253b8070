"""The keys of records, and how they are read. What they mean is told by the map in `storage.records`."""

from __future__ import annotations

import struct

from storage.records import Dedup

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_NUMBER_CHUNK = struct.Struct(">IQ")
_NUMBER_RANK_CHUNK = struct.Struct(">IQQ")

PRESENT = b"\x01"
SHARD_KEY = b"m"
MEMBERSHIP_KEY = b"M"
QUEUE_NAMES = b"q"
TIMERS = b"d"
SCHEDULES = b"j"
ALARMS = b"a"
ENTRIES = b"e"
ACCESS = b"A"
TOPICS = b"t"
SESSIONS = b"s"
REDRIVES_DUE = b"Z"
UNSIFTED = b"F"

TIMER_CHUNK = b"C"
TIMER_DEDUP = b"D"
TIMER_FLOW = b"F"
TIMER_GRAVE = b"G"
TIMER_HISTORY = b"H"
TIMER_KEY = b"K"
TIMER_REMARK = b"M"
TIMER_RETENTION = b"R"
TIMER_SESSION = b"S"
TIMER_ROUTES = b"T"
TIMER_SELECTOR = b"W"
TIMER_EXPIRY = b"X"

GRAVE_PREFIXES = b"rghiuvyblwxfF"
"""What the number of a queue or topic names beside chunks."""


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


def ready_key(number: int, rank: int, chunk_id: int) -> bytes:
    """Key that says that a chunk may be received from."""
    return b"r" + _NUMBER_RANK_CHUNK.pack(number, rank, chunk_id)


def read_ready(key: bytes) -> tuple[int, int]:
    """Rank and chunk of a ready mark."""
    _, rank, chunk_id = _NUMBER_RANK_CHUNK.unpack_from(key, 1)
    return rank, chunk_id


def _short(text: str) -> bytes:
    """A text in a key, so that no other text's key begins with it."""
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def group_subject(number: int, group: str) -> bytes:
    """How keys and timers name a group."""
    return _U32.pack(number) + _short(group)


def read_group_subject(subject: bytes) -> tuple[int, str]:
    """Queue number and group; the group is empty when the subject is a queue alone."""
    return int(_U32.unpack_from(subject)[0]), subject[5:].decode()


def group_key(number: int, group: str) -> bytes:
    """Key of a group."""
    return b"h" + group_subject(number, group)


def group_chunk_prefix(number: int, group: str) -> bytes:
    """What the keys of a group's chunks begin with."""
    return b"g" + group_subject(number, group)


def group_chunk_key(number: int, group: str, chunk_id: int) -> bytes:
    """Key that says that a chunk belongs to a group's order."""
    return b"g" + group_subject(number, group) + _U64.pack(chunk_id)


def key_prefix(number: int, key: str) -> bytes:
    """What the keys of messages with the producer's own `key` begin with."""
    return b"i" + _U32.pack(number) + _short(key)


def dedup_key(number: int, dedup: bytes) -> bytes:
    """Key of a remembered dedup id (a digest of 16 bytes)."""
    return b"u" + _U32.pack(number) + dedup


def dedup_age_prefix(number: int) -> bytes:
    """What the keys of a queue's dedup ids in order of age begin with."""
    return b"v" + _U32.pack(number)


def dedup_age_key(number: int, known: Dedup, dedup: bytes) -> bytes:
    """Key of a remembered dedup id in order of age."""
    return b"v" + _NUMBER_RANK_CHUNK.pack(number, known.until_ms, known.message_id) + dedup


def read_dedup_age(key: bytes) -> tuple[Dedup, bytes]:
    """What is remembered, and the dedup id, from its key in order of age."""
    _, until_ms, message_id = _NUMBER_RANK_CHUNK.unpack_from(key, 1)
    return Dedup(message_id, until_ms), key[21:]


def history_prefix(number: int) -> bytes:
    """What the keys of a queue's histories begin with."""
    return b"y" + _U32.pack(number)


def history_key(number: int, chunk_id: int) -> bytes:
    """Key of the history of a chunk."""
    return b"y" + _NUMBER_CHUNK.pack(number, chunk_id)


def schedule_key(name: str) -> bytes:
    """Key of a schedule."""
    return SCHEDULES + name.encode()


def alarm_key(due_ms: int, name: str) -> bytes:
    """Key of a schedule's alarm."""
    return ALARMS + _U64.pack(due_ms) + name.encode()


def read_alarm(key: bytes) -> tuple[int, str]:
    """When an alarm is due, and the schedule's name."""
    return int(_U64.unpack_from(key, 1)[0]), key[9:].decode()


def redrive_prefix(number: int) -> bytes:
    """What the keys of a queue's redrive tasks begin with."""
    return b"z" + _U32.pack(number)


def redrive_key(number: int, task: int) -> bytes:
    """Key of a redrive task."""
    return b"z" + _NUMBER_CHUNK.pack(number, task)


def redrive_due_key(due_ms: int, number: int, task: int) -> bytes:
    """Key that says when a redrive task may take its next step."""
    return REDRIVES_DUE + _U64.pack(due_ms) + _NUMBER_CHUNK.pack(number, task)


def read_redrive_due(key: bytes) -> tuple[int, int, int]:
    """When which queue's (by number) redrive task may take its next step."""
    number, task = _NUMBER_CHUNK.unpack_from(key, 9)
    return int(_U64.unpack_from(key, 1)[0]), number, task


def topic_key(topic: str) -> bytes:
    """Key of a topic."""
    return TOPICS + topic.encode()


def subscription_prefix(number: int) -> bytes:
    """What the keys of a topic's subscriptions begin with."""
    return b"b" + _U32.pack(number)


def subscription_key(number: int, name: str) -> bytes:
    """Key of a subscription."""
    return b"b" + _U32.pack(number) + name.encode()


def routes_prefix(number: int) -> bytes:
    """What the keys of the publishes remembered of a topic begin with."""
    return b"l" + _U32.pack(number)


def routes_key(number: int, first_id: int) -> bytes:
    """Key of where the messages of a publish, from `first_id` on, were routed to."""
    return b"l" + _NUMBER_CHUNK.pack(number, first_id)


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


def access_key(key_id: str) -> bytes:
    """Key of an access key."""
    return ACCESS + key_id.encode()


def timer_key(due_ms: int, kind: bytes, subject: bytes) -> bytes:
    """Key of a timer."""
    return TIMERS + _U64.pack(due_ms) + kind + subject


def chunk_subject(number: int, chunk_id: int) -> bytes:
    """How timers name a chunk."""
    return _NUMBER_CHUNK.pack(number, chunk_id)


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
