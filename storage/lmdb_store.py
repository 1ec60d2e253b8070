"""The store on disk: one LMDB environment per replica.

    directory/data.mdb      everything, in three databases (`storage.lmdb_tables`)
    directory/incoming-….mdb  another replica's copy on its way in; it takes the place of data.mdb when it is checked
    directory/damaged.mdb   what data.mdb was before it was set aside as damaged, kept while as much again is free
    directory/owner.lock    held by the one process that uses the directory
    directory/lock.mdb      LMDB's table of readers, worthless when the directory is not in use

Checksums are checked at every read of the state and at the first read of an entry; the bytes of a message are checked
again by its block whenever it is delivered.

A transaction is durable when `commit` returns: LMDB writes pages, fdatasyncs, and then writes the page that makes them
count through a descriptor that syncs each write. No option turns that off. NB: LMDB forgets a failed fdatasync and
succeeds at the next, so the first error of any kind ends a store: it refuses every further call.

The map is larger than what may be used: free pages lie scattered, and a large entry needs them in a row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

from storage import migrations
from storage.beside import Beside, Pace, Pause
from storage.copies import INCOMING, CopyFile, IncomingFile
from storage.disk import Resident, UnusableError, free_bytes, lock_directory, sync_directory
from storage.lmdb_tables import (
    FIRST_META,
    IDENTITY_META,
    LAST_META,
    MOVED_BYTES_MAX,
    RESIDENT_BYTES_MAX,
    TOUCHED_BYTES,
    Cursor,
    Error,
    Transaction,
    adopt,
    bounds,
    check_meta,
    check_step,
    failure,
    get_format,
    get_meta,
    migrate,
    open_tables,
    prepare,
    put_meta,
    state_records,
)
from storage.record_keys import entry_key, u64
from storage.seals import ENTRY_SEAL_BYTES, seal, seal_entry, unseal, unseal_entry
from storage.state import APPLIED, APPLIED_META, KEY_BYTES_MAX, DamageError, Logged, StorageFailure
from storage.sweeps import PROMPT, WHOLE, Span, Swept, swept

_FAULT_BYTES = 64 * 1024
"""What the kernel maps around a page that is read for the first time."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


ASIDE = "damaged.mdb"


def set_aside(directory: Path) -> None:
    """Make the store in `directory`, which must not be open, an empty one; what was there is kept as `damaged.mdb`.

    Of several such only the last is kept. Raises `DirectoryInUseError`, `OSError`.
    """
    lock = lock_directory(directory)
    try:
        os.replace(directory / "data.mdb", directory / ASIDE)
        sync_directory(directory)
    finally:
        os.close(lock)


class WrongIdentityError(UnusableError):
    """The directory belongs to another replica."""


def _guarded(method: Callable[Concatenate[LmdbStore, _P], _T]) -> Callable[Concatenate[LmdbStore, _P], _T]:
    """The first storage error ends the store: it is raised as `StorageFailure`, and so is every later call."""

    @wraps(method)
    def guarded(self: LmdbStore, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        if self._failure is not None:
            raise StorageFailure(f"the store takes no more calls: {self._failure}") from self._failure
        try:
            return method(self, *args, **kwargs)
        except StorageFailure as error:
            self._fail(error)
            raise
        except (Error, OSError) as error:
            raise self._fail(error) from error

    return cast("Callable[Concatenate[LmdbStore, _P], _T]", guarded)


class LmdbStore:
    """Implements `storage.state.Store` in a directory, which must be on a local file system.

    `bytes_max` is what may be used of the disk. `identity` names the replica; a directory that was first opened under
    another one is refused. `migrating(old, new)` is called before data of an older format are changed.
    Raises `UnusableError` (`DirectoryInUseError`, `NewerFormatError`, `OlderFormatError`, `WrongIdentityError`), which
    leaves everything as it is, and `StorageFailure`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bytes_max: int,
        identity: str = "",
        migrating: Callable[[int, int], None] = lambda old, new: None,
    ) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._map_bytes = 2 * bytes_max + MOVED_BYTES_MAX
        self._failure: BaseException | None = None
        self._txn: Transaction | None = None
        self._writing = False
        self._readers: list[CopyFile | Beside[Swept]] = []
        """What reads beside the ticks: while it does, no page that it may need is used again."""
        self._incoming: IncomingFile | None = None
        self._checked: set[int] = set()
        self._touched_bytes = 0
        directory.mkdir(parents=True, exist_ok=True)
        aside = directory / ASIDE
        self._aside_bytes = aside.stat().st_size if aside.exists() else 0
        self._lock = lock_directory(directory)
        try:
            self._begin_with(identity, migrating)
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, Error | OSError):
                raise failure(f"{directory} cannot be opened: ", error) from error
            raise

    def _begin_with(self, identity: str, migrating: Callable[[int, int], None]) -> None:
        for left in self._directory.glob(f"{INCOMING}*"):
            left.unlink()
        (self._directory / "lock.mdb").unlink(missing_ok=True)
        self._tables = open_tables(self._directory, self._map_bytes, shared=True)
        try:
            sync_directory(self._directory)
            sync_directory(self._directory.parent)
            with self._tables.env.begin(write=True, buffers=True) as txn:
                found = get_format(txn, self._tables) or migrations.FORMAT
                migrations.steps(found)
                owner = (get_meta(txn, self._tables, IDENTITY_META) or b"").decode()
                if owner not in ("", identity):
                    raise WrongIdentityError(
                        f"{self._directory} belongs to {owner}, not to {identity}: check the configured directory"
                    )
                if found < migrations.FORMAT:
                    migrating(found, migrations.FORMAT)
                migrate(txn, self._tables, found)
                put_meta(txn, self._tables, IDENTITY_META, identity.encode())
                self._first_index, self._last_index = bounds(txn, self._tables)
                self._written_last_index = self._last_index
        except BaseException:
            self._tables.env.close()
            raise
        self._resident = Resident(self._directory / "data.mdb", RESIDENT_BYTES_MAX)

    def _fail(self, error: BaseException) -> StorageFailure:
        if self._failure is None:
            self._failure = error
        return failure("", error)

    def _reading(self) -> Transaction:
        """The open transaction, or else one that sees the last commit."""
        if self._txn is None:
            self._txn = self._tables.env.begin(buffers=True)
        return self._txn

    def _written(self) -> Transaction:
        assert self._writing, "written outside a transaction"
        assert self._txn is not None
        return self._txn

    # --- state --------------------------------------------------------------------------------------------------------

    @_guarded
    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        if not 0 < len(key) <= KEY_BYTES_MAX:
            return None
        sealed = self._reading().get(key, None, self._tables.state)
        return None if sealed is None else unseal(key, sealed)

    @_guarded
    def put(self, key: bytes, value: bytes) -> None:
        """Set `key`."""
        assert 0 < len(key) <= KEY_BYTES_MAX, "a key of a size that no store takes"
        self._written().put(key, seal(key, value), db=self._tables.state)

    @_guarded
    def delete(self, key: bytes) -> None:
        """Forget `key`; fine if it is unknown."""
        if 0 < len(key) <= KEY_BYTES_MAX:
            self._written().delete(key, db=self._tables.state)

    @_guarded
    def first(self, prefix: bytes, start: bytes = b"") -> tuple[bytes, bytes] | None:
        """The record with the smallest key ≥ `prefix + start` that begins with `prefix`."""
        cursor = self._reading().cursor(db=self._tables.state)
        return self._record(cursor, prefix) if _seek(cursor, prefix + start) else None

    @_guarded
    def floor(self, prefix: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """The record with the greatest key ≤ `prefix + end` that begins with `prefix`."""
        cursor = self._reading().cursor(db=self._tables.state)
        target = prefix + end
        is_found = (bytes(cursor.key()) == target or cursor.prev()) if _seek(cursor, target) else cursor.last()
        return self._record(cursor, prefix) if is_found else None

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The records whose keys begin with `prefix`, from `prefix + start` on, in order. Do not write meanwhile."""
        cursor, record = self._scan_from(prefix, start)
        while record is not None:
            yield record
            record = self._scan_on(cursor, prefix)

    @_guarded
    def _scan_from(self, prefix: bytes, start: bytes) -> tuple[Cursor, tuple[bytes, bytes] | None]:
        cursor = self._reading().cursor(db=self._tables.state)
        return cursor, self._record(cursor, prefix) if _seek(cursor, prefix + start) else None

    @_guarded
    def _scan_on(self, cursor: Cursor, prefix: bytes) -> tuple[bytes, bytes] | None:
        return self._record(cursor, prefix) if cursor.next() else None

    def _record(self, cursor: Cursor, prefix: bytes) -> tuple[bytes, bytes] | None:
        view, sealed = cursor.item()
        key = bytes(view)
        return (key, unseal(key, sealed)) if key.startswith(prefix) else None

    @_guarded
    def entry(self, index: int) -> memoryview:
        """The bytes of the log entry at `index`. Raises `StorageFailure` when it is missing or damaged."""
        sealed = self._reading().get(u64(index), None, self._tables.journal)
        if sealed is None:
            raise DamageError(f"journal entry {index} is missing")
        self._touched_bytes += len(sealed) + _FAULT_BYTES
        if index in self._checked:
            return sealed[ENTRY_SEAL_BYTES:]
        _, payload = unseal_entry(index, sealed)
        if len(self._checked) >= 10_000:
            self._checked.clear()
        self._checked.add(index)
        return payload

    @_guarded
    def release(self, index: int) -> None:
        """Entry `index` holds no live message any more."""
        if index < self._first_index:
            self._drop(self._written(), index)

    # --- journal ------------------------------------------------------------------------------------------------------

    @property
    @_guarded
    def first_index(self) -> int:
        """Index of the first entry of the contiguous journal."""
        return self._first_index

    @property
    @_guarded
    def last_index(self) -> int:
        """Index of the last entry of the journal."""
        return self._last_index

    @_guarded
    def append(self, index: int, term: int, payload: bytes) -> None:
        """Add the entry after the last."""
        assert index == self._last_index + 1, "the journal has no gaps"
        self._written().put(u64(index), seal_entry(index, term, payload), append=True, db=self._tables.journal)
        self._last_index = index

    @_guarded
    def truncate(self, index: int) -> None:
        """Drop every entry from `index` on."""
        assert index > self._first_index or index == 1, "what is below first_index is applied, and never taken back"
        txn = self._written()
        for dropped in range(index, self._last_index + 1):
            self._drop(txn, dropped)
        self._last_index = min(self._last_index, index - 1)

    def _drop(self, txn: Transaction, index: int) -> None:
        txn.delete(u64(index), db=self._tables.journal)
        self._checked.discard(index)

    @_guarded
    def logged(self, index: int) -> Logged | None:
        """The entry at `index`, or None if it is not in the contiguous journal."""
        if not self._first_index <= index <= self._last_index:
            return None
        sealed = self._reading().get(u64(index), None, self._tables.journal)
        if sealed is None:
            raise DamageError(f"journal entry {index} is missing")
        self._touched_bytes += len(sealed) + _FAULT_BYTES
        term, payload = unseal_entry(index, sealed)
        return Logged(index, term, bytes(payload))

    @_guarded
    def compact(self, index: int, steps_max: int) -> None:
        """Raise `first_index` towards `index`, at most `steps_max` entries, dropping those without a live message."""
        txn = self._written()
        end = min(index, self._last_index, self._first_index + steps_max)
        if end <= self._first_index:
            return
        for dropped in range(self._first_index, end):
            if txn.get(entry_key(dropped), db=self._tables.state) is None:
                self._drop(txn, dropped)
        self._first_index = end
        put_meta(txn, self._tables, FIRST_META, u64(end))

    # --- the replica's own --------------------------------------------------------------------------------------------

    @_guarded
    def meta(self, name: str) -> bytes | None:
        """A small named value of this replica."""
        return get_meta(self._reading(), self._tables, name.encode())

    @_guarded
    def set_meta(self, name: str, value: bytes) -> None:
        """Set a small named value of this replica."""
        assert name[:1] not in ("", ":"), "a name of the store's own"
        put_meta(self._written(), self._tables, name.encode(), value)

    @_guarded
    def begin(self) -> None:
        """Open the tick's write transaction."""
        assert not self._writing, "one transaction at a time"
        if self._txn is not None:
            self._txn.abort()
        self._txn = self._tables.env.begin(write=True, buffers=True)
        self._writing = True

    @_guarded
    def commit(self) -> None:
        """Make everything since `begin` durable, all or nothing."""
        txn = self._written()
        if self._last_index != self._written_last_index:
            put_meta(txn, self._tables, LAST_META, u64(self._last_index))
            self._written_last_index = self._last_index
        self._writing, self._txn = False, None
        txn.commit()
        self._touched_bytes += _FAULT_BYTES
        if self._touched_bytes > TOUCHED_BYTES or self._readers:
            self._touched_bytes = 0
            self._readers = [reader for reader in self._readers if reader.is_running]
            self._resident.trim()

    @_guarded
    def room_bytes(self) -> int:
        """How many more bytes fit: by what is used of `bytes_max`, and by what is free on the disk.

        Of the free pages in the file only half are taken to serve, and none while something reads beside the ticks.
        """
        txn, env = self._reading(), self._tables.env
        used_pages = 2
        for found in (txn.stat(self._tables.journal), txn.stat(self._tables.state), txn.stat(self._tables.meta)):
            used_pages += found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
        page_bytes, disk_bytes = found["psize"], free_bytes(self._directory)
        if disk_bytes < self._aside_bytes:
            disk_bytes = self._drop_aside()
        free_pages = 0 if self._readers else max(0, env.info()["last_pgno"] + 1 - used_pages)
        return min(
            self._bytes_max - used_pages * page_bytes,
            disk_bytes + free_pages // 2 * page_bytes,
        )

    def _drop_aside(self) -> int:
        """The disk is short of room, and what was set aside is nothing that is needed. Returns what is free now."""
        (self._directory / ASIDE).unlink(missing_ok=True)
        self._aside_bytes = 0
        return free_bytes(self._directory)

    def close(self) -> None:
        """Let go of the files. An open transaction is undone; what reads beside the ticks is ended and waited for."""
        for reader in self._readers:
            reader.close()
            reader.join()
        self._readers.clear()
        if self._incoming is not None:
            self._incoming.abandon()
            self._incoming.join()
        if self._lock >= 0:
            if self._txn is not None:
                self._txn.abort()
            self._txn = None
            self._tables.env.close()
            os.close(self._lock)
            self._lock = -1
        self._fail(StorageFailure("it is closed"))

    # --- copies -------------------------------------------------------------------------------------------------------

    @_guarded
    def start_copy(self) -> CopyFile:
        """Begin a copy of everything as of the last commit."""
        tables = self._tables
        txn = tables.env.begin(buffers=True)
        applied = get_meta(txn, tables, APPLIED_META.encode())

        def fill(descriptor: int) -> None:
            try:
                tables.env.copyfd(descriptor, compact=True, txn=txn)
            finally:
                txn.abort()

        copy = CopyFile(self._directory, APPLIED.unpack(applied) if applied else (0, 0), fill)
        self._readers.append(copy)
        return copy

    @_guarded
    def start_sweep(self, span: Span = WHOLE, pace: Pace = PROMPT) -> Beside[Swept]:
        """Begin to read `span` of the state as of the last commit again."""
        tables = self._tables
        txn = tables.env.begin(buffers=True)
        applied = get_meta(txn, tables, APPLIED_META.encode())

        def work(pause: Pause) -> Swept:
            try:
                records = state_records(txn, tables, span.start)
                return swept(records, span, APPLIED.unpack(applied) if applied else (0, 0), pause)
            except Error as error:
                raise failure("the state cannot be read: ", error) from error
            finally:
                txn.abort()

        return self._read_beside(work, pace)

    @_guarded
    def start_check(self, pace: Pace) -> Beside[Swept]:
        """Begin to read the journal and the replica's own values again, each few as of another commit."""
        tables = self._tables

        def work(pause: Pause) -> Swept:
            entries = size = index = 0
            try:
                check_meta(tables)
                while True:
                    step_entries, step_bytes, index = check_step(tables, index)
                    entries, size = entries + step_entries, size + step_bytes
                    if not index:
                        return Swept((0, 0), b"", b"", entries, size)
                    pause(step_bytes)
            except Error as error:
                raise failure("the journal cannot be read: ", error) from error

        return self._read_beside(work, pace)

    def _read_beside(self, work: Callable[[Pause], Swept], pace: Pace) -> Beside[Swept]:
        reader = Beside("store-sweep", work, pace)
        self._readers = [*(reader for reader in self._readers if reader.is_running), reader]
        return reader

    @_guarded
    def start_install(self, size: int) -> IncomingFile:
        """Begin to take in another replica's copy of `size` bytes."""

        def check(path: Path, applied: tuple[int, int], pause: Pause) -> None:
            prepare(path, self._map_bytes, applied, pause)

        if self._aside_bytes and free_bytes(self._directory) < 2 * size:
            self._drop_aside()
        self._incoming = IncomingFile(self._directory, size, check, self._adopt, self._fail)
        return self._incoming

    @_guarded
    def _adopt(self, path: Path, applied: tuple[int, int]) -> None:
        """Make another replica's checked copy what this store shall be."""
        assert not self._writing, "a copy is installed between transactions"
        adopt(path, self._map_bytes, applied, self._tables, (self._first_index, self._last_index))
        self._fail(StorageFailure("it was replaced by an installed copy; open it again"))


def _seek(cursor: Cursor, target: bytes) -> bool:
    """Go to the first key ≥ `target`. No key is longer than the limit, so what is cut off there makes no difference."""
    return cursor.set_range(target[: KEY_BYTES_MAX + 1]) if target else cursor.first()
