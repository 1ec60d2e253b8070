"""A file that ends before its last page is whole as long as all that is missing is free."""

from __future__ import annotations

import os
import random
import struct
from contextlib import closing
from pathlib import Path

import pytest

from storage.lmdb_pages import is_cut_short
from storage.lmdb_store import LmdbStore
from storage.state import DamageError
from tests.storage.harness import Place, tick

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def pages(store: LmdbStore) -> tuple[int, int]:
    """How many pages the file has, and should have by what it calls its last."""
    path = Path(store._tables.env.path()) / "data.mdb"
    return path.stat().st_size // PAGE_BYTES, store._tables.env.info()["last_pgno"] + 1


def test_a_store_opens_whose_last_pages_were_given_back_in_the_transaction_that_took_them(tmp_path: Path) -> None:
    place = Place("lmdb", tmp_path / "a")
    with tick(place.store) as store:
        store.put(b"kept", b"value")
    with tick(place.store) as store:
        store.append(1, 1, b"x" * 5 * PAGE_BYTES)
        store.truncate(1)
        store.put(b"kept", b"another")
    there, named = pages(place.store)
    assert there < named, "the store wrote what this test says it does not"
    assert place.reopen().get(b"kept") == b"another"
    place.close()


def test_a_page_in_use_is_missed_whatever_is_free(tmp_path: Path) -> None:
    """The end is cut off random lives, page by page: what can be spared can be, and nothing else."""
    chance, spared = random.Random(1), 0
    for life in range(5):
        directory = tmp_path / str(life)
        place = Place("lmdb", directory)
        for _ in range(60):
            with tick(place.store) as store:
                for _ in range(chance.choice([1, 5, 60])):
                    key = b"k%d" % chance.randrange(200)
                    if chance.random() < 0.5:
                        store.put(key, b"v" * chance.choice([10, 1_500, 20_000]))
                    else:
                        store.delete(key)
        path, (there, named) = directory / "data.mdb", pages(place.store)
        held = list(place.store.scan(b"k"))
        place.close()
        content = path.read_bytes()
        verdicts = []
        for kept in reversed(range(there + 1)):
            os.truncate(path, kept * PAGE_BYTES)
            verdicts.append(is_cut_short(path, named - 1, PAGE_BYTES))
        assert verdicts == sorted(verdicts), "what is cut further is cut short as well"
        spared += (needed := there + 1 - verdicts.index(True)) < named
        path.write_bytes(content[: needed * PAGE_BYTES - 1])
        with pytest.raises(DamageError, match="is cut short"):
            LmdbStore(directory, bytes_max=place.bytes_max)
        path.write_bytes(content[: needed * PAGE_BYTES])
        with closing(LmdbStore(directory, bytes_max=place.bytes_max)) as store:
            assert list(store.scan(b"k")) == held
    assert spared, "no life ended in free pages"


def test_free_pages_that_cannot_be_told_are_no_excuse(tmp_path: Path) -> None:
    """Whatever stands where they are listed: nonsense ends neither in another error nor never."""
    place = Place("lmdb", tmp_path)
    for size in (1, 30_000, 3, 5_000):
        with tick(place.store) as store:
            store.put(b"k", b"v" * size)
    path, (there, named) = tmp_path / "data.mdb", pages(place.store)
    place.close()
    content = path.read_bytes()[:-PAGE_BYTES]
    newest = max((0, PAGE_BYTES), key=lambda meta: struct.unpack_from("<Q", content, meta + 144))
    (root,) = struct.unpack_from("<Q", content, newest + 80)
    for number in range(2, there - 1):
        at = number * PAGE_BYTES
        itself = struct.pack("<QHHHH100H", number, 0, 1, 216, 0, *[216] * 100) + struct.pack("<HHHH", number, 0, 0, 0)
        for page in (itself, random.Random(number).randbytes(PAGE_BYTES), b"", content[at : at + 12]):
            path.write_bytes(content[:at] + page.ljust(PAGE_BYTES, b"\xff") + content[at + PAGE_BYTES :])
            assert is_cut_short(path, named - 1, PAGE_BYTES) or number != root
