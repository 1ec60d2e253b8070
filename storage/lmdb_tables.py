"""The databases of one LMDB environment: opening, checking and merging them. The only file that imports LMDB.

    journal   index u64 big-endian → sealed entry
    meta      name → sealed value;  names beginning with ":" are the store's own
    state     key → sealed value

Seals (`storage.seals`) are checked whenever a value is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import lmdb

from storage import migrations
from storage.beside import Pause
from storage.disk import Resident, UnusableError
from storage.lmdb_pages import is_cut_short
from storage.record_keys import ENTRIES, read_u64, u64
from storage.seals import entry_seal, seal, unseal, unseal_entry
from storage.state import APPLIED, APPLIED_META, DamageError, StorageFailure
from storage.sweeps import STEP_BYTES, STEP_RECORDS

RESIDENT_BYTES_MAX = 48 * 1024 * 1024
"""Mapped pages that may count as this process's memory before they are let go of."""

TOUCHED_BYTES = 16 * 1024 * 1024
"""How much is read between two looks at what is resident."""

MOVED_BYTES_MAX = 32 * 1024 * 1024
"""How much of the journal one transaction moves into an installed copy: what is written waits in memory."""

FORMAT_META = b":format"
FIRST_META = b":first_index"
LAST_META = b":last_index"
IDENTITY_META = b":identity"
_TRAVELLING = frozenset((FORMAT_META, FIRST_META, LAST_META, APPLIED_META.encode()))
"""What of a copy's meta describes the copy; everything else is each replica's own."""

Error = lmdb.Error
_DAMAGE = (
    *(lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError),
    *(lmdb.IncompatibleError, lmdb.CursorFullError, lmdb.PageFullError, lmdb.ProblemError, lmdb.BadTxnError),
)
Transaction: TypeAlias = "lmdb.Transaction[memoryview]"
Cursor: TypeAlias = "lmdb.Cursor[memoryview]"


class Tables(NamedTuple):
    """An open environment and its databases."""

    env: lmdb.Environment
    journal: lmdb._Database
    meta: lmdb._Database
    state: lmdb._Database


class Contents(NamedTuple):
    """What a sweep found: the contiguous journal, and up to where it was applied (0, 0 for nothing yet)."""

    first_index: int
    last_index: int
    applied: tuple[int, int]


def open_tables(path: Path, map_bytes: int, *, shared: bool) -> Tables:
    """Open an environment. `shared`: a directory with a reader table; else an existing file used by one thread only.

    Raises `DamageError` when the file ends before its last page in use: to read there, and be it only for the names of
    the tables, would end the process by a signal.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    env = lmdb.Environment(
        str(path),
        map_size=-(-map_bytes // page) * page,
        subdir=shared,
        lock=shared,
        create=shared,
        max_dbs=3,
        max_spare_txns=1,
        mode=0o600,
        readahead=False,  # of backlogs much larger than memory a receive needs single entries
        sync=True,
        metasync=True,
    )
    try:
        _check_length(path / "data.mdb" if shared else path, env)
        return Tables(env, env.open_db(b"journal"), env.open_db(b"meta"), env.open_db(b"state"))
    except BaseException:
        env.close()
        raise


def failure(what: str, error: BaseException) -> StorageFailure:
    """The failure that an error of the database or of the system is: damage if the database says that it is broken."""
    if isinstance(error, StorageFailure):
        return error
    kind = DamageError if isinstance(error, _DAMAGE) else StorageFailure
    return kind(f"{what}{type(error).__name__}: {error}")


def _check_length(path: Path, env: lmdb.Environment) -> None:
    last_page, page_bytes = env.info()["last_pgno"], env.stat()["psize"]
    if is_cut_short(path, last_page, page_bytes):
        used_bytes = (last_page + 1) * page_bytes
        raise DamageError(f"{path} is cut short: it has {path.stat().st_size} bytes, {used_bytes} were written")


def get_meta(txn: Transaction, tables: Tables, name: bytes) -> bytes | None:
    """The value called `name`, checked, or None."""
    sealed = txn.get(name, db=tables.meta)
    return None if sealed is None else unseal(name, sealed)


def put_meta(txn: Transaction, tables: Tables, name: bytes, value: bytes) -> None:
    """Set the value called `name`."""
    txn.put(name, seal(name, value), db=tables.meta)


def get_format(txn: Transaction, tables: Tables) -> int:
    """The format of what is here, 0 for nothing yet."""
    return int.from_bytes(get_meta(txn, tables, FORMAT_META) or b"", "little")


def migrate(txn: Transaction, tables: Tables, found: int) -> None:
    """Turn a store of format `found` into one of this release's. Raises `NewerFormatError`, `OlderFormatError`."""
    for step in migrations.steps(found):
        step(txn, tables)
    put_meta(txn, tables, FORMAT_META, migrations.FORMAT.to_bytes(4, "little"))


def bounds(txn: Transaction, tables: Tables) -> tuple[int, int]:
    """First index of the contiguous journal, and the last of all.

    Raises `DamageError` when the journal does not end where it was written to: a shorter one must never be taken for
    the whole, since it would forget entries that this replica has acknowledged.
    """
    first, last = get_meta(txn, tables, FIRST_META), get_meta(txn, tables, LAST_META)
    cursor = txn.cursor(db=tables.journal)
    found = read_u64(bytes(cursor.key())) if cursor.last() else 0
    if last is not None and read_u64(last) != found:
        raise DamageError(f"the journal ends at entry {found}, but was written up to {read_u64(last)}")
    return (read_u64(first) if first else 1), found


def verify(txn: Transaction, tables: Tables, pause: Pause = lambda _: None) -> Contents:
    """Read everything once and check every checksum and what the journal promises. Raises `DamageError`.

    `pause` is called with the bytes just read, after every few records.
    """
    for table in (tables.meta, tables.state):
        for view, sealed in _in_steps(txn.cursor(db=table), pause):
            unseal(bytes(view), sealed)
    first_index, last_index = bounds(txn, tables)
    expected = first_index
    for view, sealed in _in_steps(txn.cursor(db=tables.journal), pause):
        index = read_u64(bytes(view))
        unseal_entry(index, sealed)
        if index >= first_index:
            if index != expected:
                raise DamageError(f"journal entry {expected} is missing")
            expected += 1
    if first_index > last_index + 1:
        raise DamageError(f"the journal ends at {last_index}, before its first entry {first_index}")
    cursor = txn.cursor(db=tables.state)
    found = cursor.set_range(ENTRIES)
    while found and (key := bytes(cursor.key()))[:1] == ENTRIES:
        if txn.get(key[1:], db=tables.journal) is None:
            raise DamageError(f"journal entry {read_u64(key[1:])} holds messages but is missing")
        found = cursor.next()
    applied = get_meta(txn, tables, APPLIED_META.encode())
    return Contents(first_index, last_index, APPLIED.unpack(applied) if applied else (0, 0))


def _in_steps(cursor: Cursor, pause: Pause) -> Iterator[tuple[memoryview, memoryview]]:
    """What the cursor runs over, with a pause after every few records."""
    records = size = 0
    for view, sealed in cursor:
        yield view, sealed
        records, size = records + 1, size + len(sealed)
        if records >= STEP_RECORDS or size >= STEP_BYTES:
            pause(size)
            records = size = 0


def state_records(txn: Transaction, tables: Tables, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of the state from the key `start` on as a sweep digests them. Raises `DamageError`."""
    cursor = txn.cursor(db=tables.state)
    if not (cursor.set_range(start) if start else cursor.first()):
        return
    for view, sealed in cursor:
        key = bytes(view)
        value = unseal(key, sealed)
        if key[:1] == ENTRIES:
            entry = txn.get(key[1:], None, tables.journal)
            if entry is None:
                raise DamageError(f"journal entry {read_u64(key[1:])} holds messages but is missing")
            value += entry_seal(entry)
        yield key, value


def check_step(tables: Tables, index: int) -> tuple[int, int, int]:
    """Read the journal again from `index` on, a few entries. Raises `DamageError`.

    Returns how many entries were read, their bytes, and where to go on, 0 at the end. Sees its own commit.
    """
    with tables.env.begin(buffers=True) as txn:
        first_index, _ = bounds(txn, tables)
        cursor = txn.cursor(db=tables.journal)
        entries = size = 0
        expected = max(index, first_index)
        if not cursor.set_range(u64(index)):
            return 0, 0, 0
        for view, sealed in cursor:
            found = read_u64(bytes(view))
            if entries >= STEP_RECORDS or size >= STEP_BYTES:
                return entries, size, found
            unseal_entry(found, sealed)
            entries, size = entries + 1, size + len(sealed)
            if found >= first_index:
                if found != expected:
                    raise DamageError(f"journal entry {expected} is missing")
                expected += 1
        return entries, size, 0


def check_meta(tables: Tables) -> None:
    """Read the replica's own values again. Raises `DamageError`."""
    with tables.env.begin(buffers=True) as txn:
        for view, sealed in txn.cursor(db=tables.meta):
            unseal(bytes(view), sealed)


def prepare(path: Path, map_bytes: int, applied: tuple[int, int], pause: Pause) -> None:
    """Check another replica's copy at `path`, and leave in it what a replica takes over from another.

    Raises `ValueError` when the copy is not what it says.
    """
    try:
        copy = open_tables(path, map_bytes, shared=False)
    except (Error, DamageError) as error:
        raise ValueError(f"the copy cannot be opened: {error}") from error
    try:
        found = _check_copy(copy, path, applied, pause)
        with copy.env.begin(write=True, buffers=True) as txn:
            migrate(txn, copy, get_format(txn, copy))
            for name in [bytes(name) for name, _ in txn.cursor(db=copy.meta)]:
                if name not in _TRAVELLING:
                    txn.delete(name, db=copy.meta)
            for dropped in range(applied[0] + 1, found.last_index + 1):
                txn.delete(u64(dropped), db=copy.journal)
            put_meta(txn, copy, LAST_META, u64(applied[0]))
    finally:
        copy.env.close()


def adopt(path: Path, map_bytes: int, applied: tuple[int, int], old: Tables, old_bounds: tuple[int, int]) -> None:
    """Put the old store's own values, and its journal from where the prepared copy ends, into the copy."""
    copy = open_tables(path, map_bytes, shared=False)
    try:
        with old.env.begin(buffers=True) as mine:
            with copy.env.begin(write=True, buffers=True) as txn:
                for view, sealed in mine.cursor(db=old.meta):
                    if (name := bytes(view)) not in _TRAVELLING:
                        txn.put(name, sealed, db=copy.meta)
            _keep_journal(copy, applied, old, mine, old_bounds)
    finally:
        copy.env.close()


def _check_copy(copy: Tables, path: Path, applied: tuple[int, int], pause: Pause) -> Contents:
    """Sweep the copy. Raises `ValueError`."""
    resident, unseen = Resident(path, RESIDENT_BYTES_MAX), 0

    def trim_and_pause(size: int) -> None:
        nonlocal unseen
        unseen += size
        if unseen > TOUCHED_BYTES:
            unseen = 0
            resident.trim()
        pause(size)

    try:
        with copy.env.begin(buffers=True) as txn:
            version = get_format(txn, copy)
            if not version:
                raise ValueError("the copy has no format")
            migrations.steps(version)
            found = verify(txn, copy, trim_and_pause)
    except (Error, DamageError, UnusableError) as error:
        raise ValueError(f"the copy is damaged or foreign: {error}") from error
    if found.applied != applied:
        raise ValueError(f"the copy was applied up to {found.applied}, not up to {applied}")
    if not found.first_index <= applied[0] <= found.last_index:
        raise ValueError("the copy's journal does not reach its last applied entry")
    return found


def _keep_journal(
    copy: Tables, applied: tuple[int, int], old: Tables, mine: Transaction, old_bounds: tuple[int, int]
) -> None:
    """Continue the copy's journal with the old store's if they fit."""
    index, term = applied
    first, last = old_bounds
    if not first <= index <= last or _entry(mine, old, index)[0] != term:
        return
    position = index + 1
    while position <= last:
        moved_bytes = 0
        with copy.env.begin(write=True, buffers=True) as txn:
            while position <= last and moved_bytes < MOVED_BYTES_MAX:
                _, sealed = _entry(mine, old, position)
                txn.put(u64(position), sealed, append=True, db=copy.journal)
                moved_bytes += len(sealed)
                position += 1
            put_meta(txn, copy, LAST_META, u64(position - 1))


def _entry(txn: Transaction, tables: Tables, index: int) -> tuple[int, memoryview]:
    """Term and sealed bytes of an entry that must be there."""
    sealed = txn.get(u64(index), db=tables.journal)
    if sealed is None:
        raise DamageError(f"journal entry {index} is missing")
    return unseal_entry(index, sealed)[0], sealed
