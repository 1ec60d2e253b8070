"""Which pages of an LMDB file are free, read from the file and not through its map: where a file has lost its end, to
look at the map ends the process by a signal.

LMDB does not write a page that one transaction takes and gives back, so a whole file may end before the page it calls
its last. Such pages are listed as free, and are never read.

The format (LMDB 0.9, `mdb.c`): pages begin with a header; the two meta pages name the roots of two trees, and the first
is that of the free pages, whose values are counted lists.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

_HEADER = struct.Struct("<QHHHH")  # number, -, kind, end of the offsets of nodes, -
_META = struct.Struct("<16x 24x LHH QQQQ Q 48x QQ")  # page size, …, root of the free pages, last page, transaction
_NODE = struct.Struct("<HHHH")  # size of the value, or child: low, middle; flags, or high; size of the key
_BRANCH, _LEAF, _ELSEWHERE = 1, 2, 1
_EMPTY = 2**64 - 1


class BrokenPagesError(Exception):
    """The free pages cannot be told: what lists them is missing, or makes no sense."""


def is_cut_short(path: Path, last_page: int, page_bytes: int) -> bool:
    """Whether a page that is in use lies, and be it in part, beyond the end of the file."""
    pages = _Pages(path, page_bytes)
    try:
        beyond = set(range(pages.file_bytes // page_bytes, last_page + 1))
        return bool(beyond and beyond.difference(pages.free()))
    except (BrokenPagesError, struct.error):
        return True
    finally:
        pages.close()


class _Pages:
    """The pages of a file. `read` is what was read of the tree: a page that leads back to itself is followed once."""

    def __init__(self, path: Path, page_bytes: int) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._page_bytes = page_bytes
        self._read: set[int] = set()
        self.file_bytes = os.fstat(self._file).st_size

    def close(self) -> None:
        os.close(self._file)

    def free(self) -> Iterator[int]:
        """The numbers of the free pages."""
        metas = [_META.unpack(self._bytes(number, _META.size)) for number in (0, 1)]
        root = max(metas, key=lambda meta: meta[-1])[7]
        return iter(()) if root == _EMPTY else self._listed(root)

    def _listed(self, number: int) -> Iterator[int]:
        page = self._bytes(number, self._page_bytes)
        own, _, kind, end, _ = _HEADER.unpack_from(page)
        if own != number or number in self._read:
            raise BrokenPagesError
        self._read.add(number)
        for (offset,) in struct.iter_unpack("<H", page[_HEADER.size : end]):
            low, middle, high, key_bytes = _NODE.unpack_from(page, offset)
            value = page[offset + _NODE.size + key_bytes :]
            if kind & _BRANCH:
                yield from self._listed(low | middle << 16 | high << 32)
            elif not kind & _LEAF:
                raise BrokenPagesError
            elif high & _ELSEWHERE:
                (first,) = struct.unpack_from("<Q", value)
                yield from _numbers(self._bytes(first, _HEADER.size + (low | middle << 16))[_HEADER.size :])
            else:
                yield from _numbers(value)

    def _bytes(self, number: int, wanted: int) -> bytes:
        start = number * self._page_bytes
        if start + wanted > self.file_bytes:
            raise BrokenPagesError
        return os.pread(self._file, wanted, start)


def _numbers(value: bytes) -> tuple[int, ...]:
    (count,) = struct.unpack_from("<Q", value)
    return struct.unpack_from(f"<{count}Q", value, 8)
