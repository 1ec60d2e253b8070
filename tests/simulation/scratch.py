"""A store in memory, as small as the engine's tests need it: transactions, crashes, copies, and a fault to inject."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from storage.state import Logged

Tables = dict[str, dict[Any, Any]]
_decoder = msgspec.msgpack.Decoder(dict[str, dict[Any, Any]])


class ScratchStore:
    """Three tables; a transaction remembers how to undo what it has written."""

    def __init__(self, tables: Tables | None = None) -> None:
        self.tables: Tables = tables or {"journal": {}, "meta": {"first": 1}, "state": {}}
        self.last_index: int = max(self.tables["journal"], default=0)
        self._undo: list[tuple[str, Any, Any]] | None = None
        self.next_install_fails = False

    def begin(self) -> None:
        assert self._undo is None
        self._undo = []

    def commit(self) -> None:
        assert self._undo is not None
        self._undo = None

    def crashed(self) -> ScratchStore:
        """What is found after a crash: the last commit."""
        return ScratchStore(self._committed())

    def _committed(self) -> Tables:
        tables = {name: dict(table) for name, table in self.tables.items()}
        for name, key, old in reversed(self._undo or []):
            if old is None:
                tables[name].pop(key, None)
            else:
                tables[name][key] = old
        return tables

    def _set(self, name: str, key: Any, value: Any) -> None:
        assert self._undo is not None, "written outside a transaction"
        table = self.tables[name]
        self._undo.append((name, key, table.get(key)))
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value

    @property
    def first_index(self) -> int:
        return int(self.tables["meta"]["first"])

    def append(self, index: int, term: int, payload: bytes) -> None:
        assert index == self.last_index + 1
        self._set("journal", index, (term, payload))
        self.last_index = index

    def truncate(self, index: int) -> None:
        for dropped in range(index, self.last_index + 1):
            self._set("journal", dropped, None)
        self.last_index = index - 1

    def logged(self, index: int) -> Logged | None:
        found = self.tables["journal"].get(index)
        return Logged(index, *found) if found else None

    def compact(self, index: int, steps_max: int) -> None:
        end = min(index, self.first_index + steps_max, self.last_index)
        for dropped in range(self.first_index, end):
            self._set("journal", dropped, None)
        self._set("meta", "first", end)

    def meta(self, name: str) -> bytes | None:
        value = self.tables["meta"].get(name)
        assert value is None or isinstance(value, bytes)
        return value

    def set_meta(self, name: str, value: bytes) -> None:
        self._set("meta", name, value)

    def get(self, key: bytes) -> bytes | None:
        value = self.tables["state"].get(key)
        assert value is None or isinstance(value, bytes)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        self._set("state", key, value)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        state = self.tables["state"]
        return ((key, state[key]) for key in sorted(state) if key.startswith(prefix) and key >= prefix + start)

    def start_copy(self) -> ScratchCopy:
        return ScratchCopy(self._committed())

    def start_install(self, size: int) -> ScratchInstall:
        return ScratchInstall(self, size)


class ScratchCopy:
    ready = True

    def __init__(self, tables: Tables) -> None:
        self._data = msgspec.msgpack.encode(tables)
        self.size = len(self._data)
        self.applied = applied_of(tables)
        self.is_closed = False

    def read(self, offset: int, size: int) -> bytes:
        assert not self.is_closed
        return self._data[offset : offset + size]

    def close(self) -> None:
        self.is_closed = True


class ScratchInstall:
    def __init__(self, store: ScratchStore, size: int) -> None:
        self._store, self._size, self._data = store, size, b""

    def write(self, offset: int, data: bytes) -> None:
        if offset != len(self._data):
            raise ValueError("a piece is missing")
        self._data += data

    def finish(self, applied: tuple[int, int]) -> None:
        store = self._store
        if store.next_install_fails or len(self._data) != self._size:
            store.next_install_fails = False
            raise ValueError("the copy is not whole")
        tables, (index, term) = _decoder.decode(self._data), applied
        assert applied_of(tables) == applied
        old = store.tables
        suffix = {
            k: v for k, v in old["journal"].items() if k > index and old["journal"].get(index, (None,))[0] == term
        }
        tables["journal"] = {k: v for k, v in tables["journal"].items() if k <= index} | suffix
        first, kept = tables["meta"]["first"], {k: v for k, v in old["meta"].items() if k not in ("applied", "first")}
        tables["meta"] = {"first": first, "applied": tables["meta"]["applied"], **kept}
        store.tables = tables

    def abandon(self) -> None:
        self._data = b""


def applied_of(tables: Tables) -> tuple[int, int]:
    data = tables["meta"]["applied"]
    return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")
