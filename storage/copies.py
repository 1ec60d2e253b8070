"""Copies of a store as files: one made beside the ticks and read in pieces, one taken in and put in the store's place.

    copy = data.mdb | crc32 u32 little-endian of it

The checksum is of the whole file, and is checked before the database code sees a byte of it.
"""

from __future__ import annotations

import os
import tempfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

from storage.disk import sync_directory
from storage.state import StorageFailure

_PIECE_BYTES = 1024 * 1024
_TRAILER_BYTES = 4


class CopyFile:
    """Implements `storage.state.Copy` as an unnamed file, which is gone with the process."""

    def __init__(self, directory: Path, applied: tuple[int, int], fill: Callable[[int], None]) -> None:
        """Begin to make the copy: `fill` writes it to a descriptor, in a thread."""
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - closed by `close`
        self._applied = applied
        self._size = 0
        self._error: BaseException | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._make, args=(fill,), name="store-copy", daemon=True)
        self._thread.start()

    def _make(self, fill: Callable[[int], None]) -> None:
        try:
            descriptor = self._file.fileno()
            fill(descriptor)
            checksum = offset = 0
            while piece := os.pread(descriptor, _PIECE_BYTES, offset):
                checksum = zlib.crc32(piece, checksum)
                offset += len(piece)
            os.pwrite(descriptor, checksum.to_bytes(_TRAILER_BYTES, "little"), offset)
            self._size = offset + _TRAILER_BYTES
        except BaseException as error:
            self._error = error  # raised to whoever asks whether the copy is ready
        finally:
            if self._is_closed:
                self._file.close()

    @property
    def is_running(self) -> bool:
        """Whether the copy is still being made."""
        return self._thread.is_alive()

    @property
    def ready(self) -> bool:
        """Whether the copy is complete. Raises `StorageFailure` if it failed."""
        if self.is_running:
            return False
        if self._error is not None:
            raise StorageFailure(f"a copy could not be made: {self._error}") from self._error
        return True

    @property
    def size(self) -> int:
        """Bytes of the copy."""
        return self._size

    @property
    def applied(self) -> tuple[int, int]:
        """(index, term) of the last entry applied in the copy."""
        return self._applied

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        try:
            return os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            raise StorageFailure(f"a copy could not be read: {error}") from error

    def close(self) -> None:
        """Drop the copy; one still being made is dropped when it is done."""
        self._is_closed = True
        if not self.is_running:
            self._file.close()

    def join(self) -> None:
        """Wait until nothing of the store is used any more."""
        self._thread.join()
        if self._is_closed:
            self._file.close()


class IncomingFile:
    """Implements `storage.state.Install` as the file `incoming.mdb` beside `data.mdb`."""

    def __init__(
        self,
        directory: Path,
        size: int,
        adopt: Callable[[Path, tuple[int, int]], None],
        fail: Callable[[BaseException], StorageFailure],
    ) -> None:
        """`adopt` checks the whole file and puts in what is kept of the old store; `fail` ends the old store."""
        self._directory = directory
        self._path = directory / "incoming.mdb"
        self._size = size
        self._adopt, self._fail = adopt, fail
        self._offset = 0
        self._checksum = 0
        self._tail = b""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def write(self, offset: int, data: bytes) -> None:
        """Add the next piece."""
        if offset != self._offset or offset + len(data) > self._size:
            raise ValueError("this is not the next piece of the copy")
        view = memoryview(data)
        while view:
            try:
                written = os.pwrite(self._descriptor, view, self._offset)
            except OSError as error:
                raise self._fail(error) from error
            self._offset += written
            view = view[written:]
        body = self._tail + data
        self._tail = body[-_TRAILER_BYTES:]
        self._checksum = zlib.crc32(body[:-_TRAILER_BYTES], self._checksum)

    def finish(self, applied: tuple[int, int]) -> None:
        """Check the whole copy and put it in the store's place; `ValueError` leaves everything as it was."""
        try:
            if self._offset != self._size or self._checksum != int.from_bytes(self._tail, "little"):
                raise ValueError("the copy is not whole")
            os.ftruncate(self._descriptor, self._size - _TRAILER_BYTES)
            self._adopt(self._path, applied)
            os.fsync(self._descriptor)
            os.replace(self._path, self._directory / "data.mdb")
            sync_directory(self._directory)
        except OSError as error:
            raise self._fail(error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Forget the pieces."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._path.unlink(missing_ok=True)
