"""What only a disk can do to a store: rot, fail, be full, be someone else's; and what is synced when."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import storage.copies
import storage.lmdb_tables
from storage.disk import DirectoryInUseError
from storage.lmdb_store import LmdbStore, WrongIdentityError, set_aside
from storage.lmdb_tables import FORMAT_META, open_tables, put_meta
from storage.migrations import FORMAT, NewerFormatError
from storage.record_keys import entry_key
from storage.state import CopyError, StorageFailure
from tests.storage.harness import checked, dump, finished, install, set_applied, tick, whole

BYTES_MAX = 64 * 1024 * 1024
ROOT = Path(__file__).parents[2]


def opened(directory: Path, **options: Any) -> LmdbStore:
    return LmdbStore(directory, bytes_max=BYTES_MAX, **options)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    store = opened(tmp_path / "store")
    yield store
    store.close()


def refuses_everything(store: LmdbStore) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.get(b"k"),
        lambda: store.put(b"k", b"v"),
        lambda: store.delete(b"k"),
        lambda: store.first(b""),
        lambda: store.floor(b"", b""),
        lambda: list(store.scan(b"")),
        lambda: store.entry(1),
        lambda: store.release(1),
        lambda: store.first_index,
        lambda: store.last_index,
        lambda: store.append(1, 1, b""),
        lambda: store.truncate(1),
        lambda: store.logged(1),
        lambda: store.compact(1, 1),
        lambda: store.meta("hard"),
        lambda: store.set_meta("hard", b""),
        lambda: store.begin(),
        lambda: store.commit(),
        lambda: store.room_bytes(),
        lambda: store.start_copy(),
        lambda: store.start_install(1),
    ]
    for call in calls:
        with pytest.raises(StorageFailure):
            call()


# --- rot --------------------------------------------------------------------------------------------------------------

MARK = b"a string that is found nowhere else"


@pytest.mark.parametrize("where", ["state", "journal", "large entry", "meta"])
@pytest.mark.parametrize("position", [0, len(MARK) - 1])
def test_a_flipped_bit_on_disk_is_found(tmp_path: Path, where: str, position: int) -> None:
    store = opened(tmp_path)
    with tick(store):
        if where == "state":
            store.put(b"key", MARK)
        elif where == "meta":
            store.set_meta("hard", MARK)
        else:
            store.append(1, 1, MARK + bytes(100_000 if where == "large entry" else 0))
    store.close()
    with (tmp_path / "data.mdb").open("r+b") as file:
        data = file.read()
        file.seek(data.index(MARK) + position)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes((byte ^ 1,)))
    reads: dict[str, Callable[[LmdbStore], object]] = {
        "state": lambda store: store.get(b"key"),
        "meta": lambda store: store.meta("hard"),
        "journal": lambda store: store.entry(1),
        "large entry": lambda store: store.logged(1),
    }
    store = opened(tmp_path)
    with pytest.raises(StorageFailure, match="checksum"):
        reads[where](store)
    refuses_everything(store)
    store.close()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageFailure, match="cannot be opened"):
        opened(tmp_path)


# --- whose directory --------------------------------------------------------------------------------------------------


def test_a_newer_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    opened(tmp_path).close()
    tables = open_tables(tmp_path, BYTES_MAX, shared=True)
    with tables.env.begin(write=True, buffers=True) as txn:
        put_meta(txn, tables, FORMAT_META, (FORMAT + 1).to_bytes(4, "little"))
    tables.env.close()
    with pytest.raises(NewerFormatError, match=rf"format {FORMAT + 1}.* up to {FORMAT}: run the release") as refusal:
        opened(tmp_path)
    assert "empty the directory" in str(refusal.value)


def test_a_second_process_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    program = f"""
        import sys
        from pathlib import Path
        from storage.lmdb_store import LmdbStore
        store = LmdbStore(Path({str(tmp_path)!r}), bytes_max={BYTES_MAX})
        print("open", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        with pytest.raises(DirectoryInUseError, match=rf"in use by process {first.pid}"):
            opened(tmp_path)
        first.kill()
    opened(tmp_path).close()


def test_another_replica_is_refused(tmp_path: Path) -> None:
    opened(tmp_path, identity="shard 0 of n1").close()
    with pytest.raises(WrongIdentityError, match="belongs to shard 0 of n1, not to shard 0 of n2"):
        opened(tmp_path, identity="shard 0 of n2")
    opened(tmp_path, identity="shard 0 of n1").close()


def test_a_directory_without_an_owner_gets_one(tmp_path: Path) -> None:
    opened(tmp_path).close()
    opened(tmp_path, identity="shard 0 of n1").close()
    with pytest.raises(WrongIdentityError):
        opened(tmp_path, identity="shard 0 of n2")


def test_an_installed_copy_does_not_change_whose_directory_it_is(tmp_path: Path) -> None:
    one, two = opened(tmp_path / "1", identity="n1"), opened(tmp_path / "2", identity="n2")
    with tick(one):
        one.append(1, 1, b"")
        set_applied(one, 1, 1)
    install(two, whole(finished(one.start_copy())), (1, 1))
    one.close()
    two.close()
    opened(tmp_path / "2", identity="n2").close()


# --- durability -------------------------------------------------------------------------------------------------------

COMMITS = """
    import os, sys
    from pathlib import Path
    from storage.lmdb_store import LmdbStore
    from storage.state import StorageFailure
    store = LmdbStore(Path(sys.argv[1]), bytes_max=1 << 24)
    os.write(1, b"open;")
    for index in range(1, 6):
        try:
            store.begin()
            store.append(index, 1, b"body" * 1000)
            store.commit()
        except StorageFailure as failure:
            os.write(1, b"failed;")
            continue
        os.write(1, b"done;")
"""


def traced(directory: Path, *options: str) -> tuple[str, list[str]]:
    """What a process that commits five times says, and its system calls of interest in order."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = directory / "trace"
    command = ["strace", "-f", "-y", "-o", str(log), "-e", "trace=fdatasync,fsync,write,pwrite64,writev,openat"]
    command += [*options, sys.executable, "-c", textwrap.dedent(COMMITS), str(directory / "store")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if not log.exists() or "PTRACE" in ended.stderr:
        pytest.skip("strace may not trace here")
    return ended.stdout, log.read_text().splitlines()


def test_a_commit_returns_after_its_pages_are_synced_and_its_root_is_written_through(tmp_path: Path) -> None:
    said, calls = traced(tmp_path)
    assert said == "open;" + "done;" * 5
    roots = [call for call in calls if "openat" in call and "data.mdb" in call and "O_DSYNC" in call]
    assert roots, "the page that makes a commit count is written through a descriptor that syncs every write"
    root = roots[0].rsplit("= ", 1)[1].split("<")[0]
    steps = ""
    for call in calls:
        if "fdatasync(" in call and "data.mdb" in call and call.endswith("= 0"):
            steps += "S"
        elif f"pwrite64({root}<" in call:
            steps += "R"
        elif ("pwrite64(" in call or "writev(" in call) and "data.mdb" in call:
            steps += "w"
        elif "write(1<" in call and "done;" in call:
            steps += "!"
    commits = steps.split("!")
    assert len(commits) == 6
    assert all(commit.endswith("wSR") for commit in commits[:5]), steps


@pytest.mark.parametrize("call", ["fdatasync", "pwrite64", "writev"])
def test_the_first_error_of_the_disk_ends_the_store(tmp_path: Path, call: str) -> None:
    """LMDB itself would go on: only one call fails here, and all that follow would succeed."""
    _, calls = traced(tmp_path)
    before_open_ends = next(number for number, line in enumerate(calls) if '"open;"' in line)
    nth = sum(f"{call}(" in line for line in calls[:before_open_ends])
    if nth == sum(f"{call}(" in line for line in calls):
        pytest.skip(f"commits do not use {call}")
    shutil.rmtree(tmp_path / "store")
    said, _ = traced(tmp_path, "-e", f"inject={call}:error=EIO:when={nth + 2}")
    assert "failed;" in said
    assert said.startswith("open;")
    assert "done" not in said[said.index("failed") :], said


def test_a_store_that_failed_refuses_every_further_call(store: LmdbStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with tick(store):
        store.put(b"k", b"v")

    def unreadable(path: Path) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("storage.lmdb_store.free_bytes", unreadable)
    with pytest.raises(StorageFailure, match="Input/output error") as failure:
        store.room_bytes()
    assert isinstance(failure.value.__cause__, OSError)
    monkeypatch.undo()
    refuses_everything(store)


def test_a_full_map_ends_the_store(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, bytes_max=1024 * 1024)
    store.begin()
    index = 0
    with pytest.raises(StorageFailure, match="MapFull"):  # noqa: PT012 - which entry does not fit is LMDB's business
        while index < 1000:
            index += 1
            store.append(index, 1, bytes(1024 * 1024))
    refuses_everything(store)
    store.close()


def test_a_closed_store_refuses_everything(store: LmdbStore) -> None:
    store.close()
    store.close()
    refuses_everything(store)


# --- copies -----------------------------------------------------------------------------------------------------------


def prepared(tmp_path: Path) -> tuple[LmdbStore, list[tuple[int, bytes]]]:
    """A follower with entries of its own, and a leader's copy at entry 3."""
    leader, follower = opened(tmp_path / "leader"), opened(tmp_path / "follower")
    with tick(leader):
        for index in range(1, 5):
            leader.append(index, 1, b"leader's" * 100)
        leader.put(entry_key(1), b"\0\0\0\1")
        leader.put(b"queue", b"leader's")
        leader.compact(3, 9)
        set_applied(leader, 3, 1)
    with tick(follower):
        for index in range(1, 6):
            follower.append(index, 1, b"follower's" * 1000)
        follower.put(b"queue", b"follower's")
        follower.set_meta("hard", b"follower's")
        set_applied(follower, 1, 1)
    pieces = whole(finished(leader.start_copy()))
    leader.close()
    return follower, pieces


def test_a_crash_at_any_line_of_an_installation_leaves_the_old_store_or_the_new(tmp_path: Path) -> None:
    follower, pieces = prepared(tmp_path)
    old = dump(follower)
    directory, found = tmp_path / "follower", tmp_path / "found"
    code = {storage.copies.__file__, storage.lmdb_tables.__file__}
    moments: list[Path] = []
    seen: set[bytes] = set()

    def photograph(frame: FrameType, event: str, _: object) -> Any:
        """Keep what a process would find that opened the directory if this one ended before the next line."""
        if frame.f_code.co_filename not in code:
            return None
        files = {path.name: path.read_bytes() for path in directory.iterdir()}
        fingerprint = repr(sorted((name, hash(data)) for name, data in files.items())).encode()
        if fingerprint not in seen:
            seen.add(fingerprint)
            moment = found / str(len(moments))
            moment.mkdir(parents=True)
            for name, data in files.items():
                (moment / name).write_bytes(data)
            moments.append(moment)
        return photograph

    incoming = follower.start_install(sum(len(data) for _, data in pieces))
    for piece in pieces:
        incoming.write(*piece)
    before = sys.gettrace()
    threading.settrace(photograph)
    try:
        checked(incoming, (3, 1))
        sys.settrace(photograph)
        incoming.finish()
    finally:
        threading.settrace(before)  # type: ignore[arg-type]
        sys.settrace(before)
    follower.close()
    after = opened(directory)
    new = dump(after)
    after.close()
    assert new["bounds"] == (3, 5)
    assert new != old

    outcomes = []
    for moment in moments:
        survivor = opened(moment)
        outcomes.append(dump(survivor))
        assert not list(moment.glob("incoming*"))
        survivor.close()
    assert all(outcome in (old, new) for outcome in outcomes)
    assert outcomes.index(new) >= 4, "the steps before the last were seen"
    assert new not in outcomes[: outcomes.index(new)]
    assert old not in outcomes[outcomes.index(new) :]


def test_an_installation_syncs_the_file_before_its_name_and_then_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, pieces = prepared(tmp_path)
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        calls.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        calls.append(f"replace {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    install(follower, pieces, (3, 1))
    follower.close()
    assert [call.partition("-")[0] for call in calls[-3:]] == ["fsync incoming", "replace data.mdb", "fsync follower"]


def damaged(tmp_path: Path, damage: Callable[[LmdbStore], None]) -> list[tuple[int, bytes]]:
    """A copy with a good checksum of a store that was not good."""
    leader = opened(tmp_path / "bad leader")
    with tick(leader):
        for index in range(1, 6):
            leader.append(index, 1, b"entry")
        leader.put(entry_key(2), b"\0\0\0\1")
        set_applied(leader, 5, 1)
        damage(leader)
    pieces = whole(finished(leader.start_copy()))
    leader.close()
    return pieces


def _put_raw(table: str, key: bytes, value: bytes) -> Callable[[LmdbStore], None]:
    return lambda store: store._written().put(key, value, db=getattr(store._tables, table)) and None


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda store: store._drop(store._written(), 4), "entry 4 is missing"),
        (
            lambda store: (store.compact(4, 9), store._drop(store._written(), 2)),
            "entry 2 holds messages but is",
        ),
        (_put_raw("state", b"k", b"\0\0\0\0bad"), "b'k' does not match"),
        (_put_raw("meta", b"hard", b"\0\0\0\0bad"), "b'hard' does not match"),
        (_put_raw("journal", (3).to_bytes(8, "big"), bytes(12)), "entry 3 does not match"),
        (lambda store: put_meta(store._written(), store._tables, FORMAT_META, b"\xff\0\0\0"), "format 255"),
        (lambda store: store.truncate(5), "does not reach"),
    ],
)
def test_a_copy_of_a_damaged_store_is_refused(
    tmp_path: Path, store: LmdbStore, damage: Callable[[LmdbStore], None], why: str
) -> None:
    with tick(store):
        store.append(1, 1, b"mine")
    before = dump(store)
    with pytest.raises(ValueError, match=why):
        install(store, damaged(tmp_path, damage), (5, 1))
    assert dump(store) == before


def test_an_entry_that_takes_a_checked_ones_place_is_checked_anew(store: LmdbStore) -> None:
    store.begin()
    store.append(1, 1, b"one")
    store.append(2, 1, b"two")
    assert bytes(store.entry(2)) == b"two"
    store.truncate(2)
    _put_raw("journal", (2).to_bytes(8, "big"), bytes(20))(store)
    with pytest.raises(StorageFailure, match="entry 2 does not match"):
        store.entry(2)


def test_ticks_go_on_beside_a_copy(store: LmdbStore) -> None:
    with tick(store):
        for index in range(1, 200):
            store.append(index, 1, os.urandom(100_000))
        set_applied(store, 100, 1)
    copy, beside = store.start_copy(), 0
    while not copy.ready:
        with tick(store):
            store.put(b"beside", beside.to_bytes(8, "big"))
        beside += 1
    assert beside > 2
    copy.close()


def test_ticks_go_on_beside_the_check_of_a_copy(tmp_path: Path, store: LmdbStore) -> None:
    leader, beside = opened(tmp_path / "leader"), 0
    with tick(leader):
        for index in range(1, 200):
            leader.append(index, 1, os.urandom(100_000))
        set_applied(leader, 100, 1)
    pieces = whole(finished(leader.start_copy()), 1 << 20)
    leader.close()
    incoming = store.start_install(sum(len(data) for _, data in pieces))
    for piece in pieces:
        incoming.write(*piece)
    incoming.check((100, 1))
    while not incoming.checked:
        with tick(store):
            store.put(b"beside", beside.to_bytes(8, "big"))
        beside += 1
    assert beside > 2
    incoming.finish()


def test_a_store_that_is_closed_waits_for_its_copy(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with tick(store):
        for index in range(1, 100):
            store.append(index, 1, os.urandom(100_000))
    copy = store.start_copy()
    store.close()
    assert not copy.is_running
    opened(tmp_path).close()


def test_a_copy_that_could_not_be_made_says_so(store: LmdbStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    copy = store.start_copy()
    copy.join()
    with pytest.raises(CopyError, match="No space left"):
        assert copy.ready
    assert store.room_bytes() > 0, "the store itself is sound"


def test_a_copy_of_what_cannot_be_read_ends_the_store(store: LmdbStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    copy = store.start_copy()
    copy.join()
    with pytest.raises(StorageFailure, match="Input/output error"):
        assert copy.ready


def test_a_copy_that_does_not_fit_is_refused_and_the_store_goes_on(
    store: LmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CopyError, match="does not fit"):
        store.start_install(1 << 60)
    incoming = store.start_install(100)

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(CopyError, match="No space left"):
            incoming.write(0, b"x")
    incoming.abandon()
    with tick(store):
        store.put(b"k", b"v")


def test_nothing_is_left_behind_by_a_crash(tmp_path: Path) -> None:
    store = opened(tmp_path)
    (tmp_path / "incoming-half.mdb").write_bytes(b"half a copy")
    finished(store.start_copy())
    store.close()
    opened(tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} == {"data.mdb", "lock.mdb", "owner.lock"}


# --- set aside --------------------------------------------------------------------------------------------------------


def test_what_is_set_aside_is_kept_once_and_the_store_is_empty(tmp_path: Path) -> None:
    for index in (1, 2):
        store = opened(tmp_path)
        assert store.last_index == 0
        with tick(store):
            for filled in range(1, index + 1):
                store.append(filled, 1, b"entry")
        with pytest.raises(DirectoryInUseError):
            set_aside(tmp_path)
        store.close()
        set_aside(tmp_path)
    store = opened(tmp_path)
    assert store.last_index == 0
    store.close()
    (tmp_path / "damaged.mdb").replace(tmp_path / "data.mdb")
    store = opened(tmp_path)
    assert store.last_index == 2, "the operator can put it back"
    store.close()


@pytest.mark.parametrize("for_what", ["messages", "a copy"])
def test_what_was_set_aside_goes_when_its_room_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, for_what: str
) -> None:
    opened(tmp_path).close()
    set_aside(tmp_path)
    store, aside = opened(tmp_path), tmp_path / "damaged.mdb"
    copy_bytes = 1000
    wanted_bytes = {"messages": aside.stat().st_size, "a copy": 2 * copy_bytes}[for_what]
    for free, is_kept in ((wanted_bytes, True), (wanted_bytes - 1, False)):
        for module in ("storage.lmdb_store", "storage.copies"):
            monkeypatch.setattr(f"{module}.free_bytes", lambda path, free=free: free)
        if for_what == "messages":
            store.room_bytes()
        else:
            store.start_install(copy_bytes).abandon()
        assert aside.exists() == is_kept
    store.close()


# --- memory -----------------------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_read_does_not_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mebibyte = 1024 * 1024
    monkeypatch.setattr("storage.lmdb_store.RESIDENT_BYTES_MAX", 1 * mebibyte)
    monkeypatch.setattr("storage.lmdb_store.TOUCHED_BYTES", 4 * mebibyte)
    store = opened(tmp_path)
    with tick(store):
        for index in range(1, 49):
            store.append(index, 1, bytes(mebibyte))
    before, highest = resident_bytes(), 0
    for index in range(1, 49):
        with tick(store):
            store.put(b"read", bytes(store.entry(index)[-8:]))
        highest = max(highest, resident_bytes() - before)
    store.close()
    assert highest < 16 * mebibyte
