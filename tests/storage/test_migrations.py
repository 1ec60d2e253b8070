"""Old data opens, whole or not at all; a copy of an older replica too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from storage import migrations
from storage.lmdb_store import LmdbStore
from storage.lmdb_tables import Tables, Transaction, put_meta
from storage.migrations import NewerFormatError, OlderFormatError
from storage.seals import seal, unseal
from tests.storage.harness import dump, finished, install, set_applied, tick, whole

BYTES_MAX = 16 * 1024 * 1024


@pytest.fixture(autouse=True)
def first_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """These stories begin at format 1, with no way to any other."""
    monkeypatch.setattr(migrations, "FORMAT", 1)
    monkeypatch.setattr(migrations, "MIGRATIONS", {})


def opened(directory: Path, **options: Any) -> LmdbStore:
    return LmdbStore(directory, bytes_max=BYTES_MAX, **options)


def shout(txn: Transaction, tables: Tables) -> None:
    """Format 2 of this story: every value of the state in capitals."""
    for key in [bytes(key) for key, _ in txn.cursor(db=tables.state)]:
        sealed = txn.get(key, db=tables.state)
        assert sealed is not None
        txn.put(key, seal(key, unseal(key, sealed).upper()), db=tables.state)


def number(txn: Transaction, tables: Tables) -> None:
    """Format 3: a record more."""
    txn.put(b"z", seal(b"z", b"3"), db=tables.state)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store of format 1."""
    directory = tmp_path / "old"
    store = opened(directory, identity="n1")
    fill(store)
    store.close()
    return directory


def fill(store: LmdbStore) -> None:
    with tick(store):
        store.append(1, 1, b"entry")
        store.put(b"a", b"one")
        store.put(b"b", b"two")
        set_applied(store, 1, 1)


@pytest.fixture
def later(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that knows format 3 has come."""
    monkeypatch.setattr(migrations, "FORMAT", 3)
    monkeypatch.setattr(migrations, "MIGRATIONS", {1: shout, 2: number})


@pytest.mark.usefixtures("later")
def test_every_step_is_taken_once_and_the_journal_stays(old: Path) -> None:
    said: list[tuple[int, int]] = []
    for _ in range(2):
        store = opened(old, identity="n1", migrating=lambda *formats: said.append(formats))
        assert list(store.scan(b"")) == [(b"a", b"ONE"), (b"b", b"TWO"), (b"z", b"3")]
        assert bytes(store.entry(1)) == b"entry"
        store.close()
    assert said == [(1, 3)]


def test_a_migration_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(txn: Transaction, tables: Tables) -> None:
        raise ZeroDivisionError

    before = opened(old, identity="n1")
    wanted = dump(before)
    before.close()
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "FORMAT", 3)
        patch.setattr(migrations, "MIGRATIONS", {1: shout, 2: fail})
        with pytest.raises(ZeroDivisionError):
            opened(old, identity="n1")
    after = opened(old, identity="n1")
    assert dump(after) == wanted
    after.close()


def test_a_format_from_which_there_is_no_way_is_refused(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "FORMAT", 4)
    monkeypatch.setattr(migrations, "MIGRATIONS", {1: shout, 3: number})
    with pytest.raises(OlderFormatError, match="format 1, this release reads formats from 3 to 4: run a release"):
        opened(old, identity="n1")


@pytest.mark.usefixtures("later")
def test_another_replicas_directory_is_refused_before_anything_is_changed(old: Path) -> None:
    with pytest.raises(migrations.UnusableError, match="belongs to n1"):
        opened(old, identity="n2")
    store = opened(old, identity="n1")
    assert store.get(b"z") == b"3"
    store.close()


def copied(directory: Path) -> list[tuple[int, bytes]]:
    store = opened(directory, identity="n1")
    pieces = whole(finished(store.start_copy()))
    store.close()
    return pieces


def test_an_older_replicas_copy_is_migrated_when_it_is_installed(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = copied(old)
    monkeypatch.setattr(migrations, "FORMAT", 3)
    monkeypatch.setattr(migrations, "MIGRATIONS", {1: shout, 2: number})
    store = opened(tmp_path / "new", identity="n2")
    install(store, pieces, (1, 1))
    store.close()
    store = opened(tmp_path / "new", identity="n2", migrating=lambda *formats: pytest.fail("it was migrated"))
    assert list(store.scan(b"")) == [(b"a", b"ONE"), (b"b", b"TWO"), (b"z", b"3")]
    store.close()


def test_a_newer_replicas_copy_is_refused(old: Path, tmp_path: Path) -> None:
    store = opened(old, identity="n1")
    with tick(store):
        put_meta(store._written(), store._tables, b":format", (2).to_bytes(4, "little"))
    store.close()
    with pytest.raises(NewerFormatError):
        opened(old, identity="n1")
    pieces: list[tuple[int, bytes]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrations, "FORMAT", 2)
        pieces = copied(old)
    store = opened(tmp_path / "new", identity="n2")
    with pytest.raises(ValueError, match="format 2, this release knows formats up to 1"):
        install(store, pieces, (1, 1))
    assert store.last_index == 0
    store.close()
