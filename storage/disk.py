"""What a store asks of the operating system beside its database: locks, syncs, free space, resident memory."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path

_MADV_DONTNEED = 4


class UnusableError(Exception):
    """The directory cannot be used as it is. The message is for the operator, and says what can be done."""


class DirectoryInUseError(UnusableError):
    """Another process has the directory open."""


def lock_directory(directory: Path) -> int:
    """Make this process the directory's only user for as long as the returned descriptor is open.

    Raises `DirectoryInUseError` at once when it is in use. The lock goes with the process, however that ends.
    """
    path = directory / "owner.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise DirectoryInUseError(
            f"{directory} is in use by process {owner}: end it first, or give this one a directory of its own"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """Bytes an unprivileged process may still write to the file system of `path`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class Resident:
    """Keeps the mapped pages of a file from counting as this process's memory for ever.

    The kernel maps every page of a file that was read, and its cached neighbours, until it is short of memory. Letting
    go of the mapping costs nothing but a soft fault at the next read: the data stay in the page cache. Does nothing
    where /proc is missing.
    """

    def __init__(self, path: Path, bytes_max: int) -> None:
        """`path` must be mapped already; its pages are let go of when more than `bytes_max` are resident."""
        self._bytes_max = bytes_max
        self._span = _mapped_span(path) if sys.platform == "linux" else None
        self._libc = ctypes.CDLL(None, use_errno=True) if self._span else None

    def trim(self) -> None:
        """Let go of the pages if there are too many."""
        if self._libc is None or self._span is None or _shared_bytes() <= self._bytes_max:
            return
        start, length = self._span
        if self._libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_DONTNEED):
            raise OSError(ctypes.get_errno(), "madvise failed")


def _mapped_span(path: Path) -> tuple[int, int] | None:
    """Address and length of the shared mapping of `path`."""
    real = str(path.resolve())
    with suppress(FileNotFoundError), open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            span, _, rest = line.partition(" ")
            if rest.rstrip("\n").endswith(f" {real}"):
                start, _, end = span.partition("-")
                return int(start, 16), int(end, 16) - int(start, 16)
    return None


def _shared_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[2]) * os.sysconf("SC_PAGE_SIZE")
