"""Copies of a store as files: one made beside the ticks and read in pieces, one taken in and put in the store's place.

    copy = data.mdb | crc32 u32 little-endian of it

The checksum is of the whole file, and is checked before the database code sees a byte of it.
"""

from __future__ import annotations

import errno
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from storage.beside import FULL, Beside, Pause
from storage.disk import free_bytes, sync_directory
from storage.state import CopyError, StorageFailure

INCOMING = "incoming-"
"""What the names of copies on their way in begin with."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)
_PIECE_BYTES = 1024 * 1024
_TRAILER_BYTES = 4


def _trouble(what: str, error: BaseException) -> CopyError | StorageFailure:
    """Lack of room ends a copy only; whatever else the disk says ends the store."""
    full = isinstance(error, OSError) and error.errno in _FULL
    if full or any(os.strerror(number) in str(error) for number in _FULL):
        return CopyError(f"{what}: {error}")
    return error if isinstance(error, StorageFailure) else StorageFailure(f"{what}: {error}")


class CopyFile:
    """Implements `storage.state.Copy` as an unnamed file, which is gone with the process."""

    def __init__(self, directory: Path, applied: tuple[int, int], fill: Callable[[int], None]) -> None:
        """Begin to make the copy: `fill` writes it to a descriptor, in a thread."""
        self._directory = directory
        self._applied = applied
        self._fill = fill
        self._descriptor = -1
        self._is_closed = False
        self._work = Beside("store-copy", self._make, FULL)

    def _make(self, pause: Pause) -> int:
        """Returns the copy's bytes."""
        try:
            with tempfile.TemporaryFile(dir=self._directory, buffering=0) as file:
                self._fill(file.fileno())
                checksum = offset = 0
                while piece := os.pread(file.fileno(), _PIECE_BYTES, offset):
                    checksum = zlib.crc32(piece, checksum)
                    offset += len(piece)
                    pause(len(piece))
                os.pwrite(file.fileno(), checksum.to_bytes(_TRAILER_BYTES, "little"), offset)
                self._descriptor = os.dup(file.fileno())
                return offset + _TRAILER_BYTES
        finally:
            if self._is_closed:
                self._drop()

    def _drop(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def is_running(self) -> bool:
        """Whether the copy is still being made."""
        return self._work.is_running

    @property
    def ready(self) -> bool:
        """Whether the copy is complete. Raises `CopyError`, `StorageFailure`."""
        try:
            return self._work.ready
        except Exception as error:
            raise _trouble("a copy could not be made", error) from error

    @property
    def size(self) -> int:
        """Bytes of the copy."""
        return self._work.result

    @property
    def applied(self) -> tuple[int, int]:
        """(index, term) of the last entry applied in the copy."""
        return self._applied

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise StorageFailure(f"a copy could not be read: {error}") from error

    def close(self) -> None:
        """Drop the copy; one still being made is dropped when it is done."""
        self._is_closed = True
        self._work.close()
        if not self.is_running:
            self._drop()

    def join(self) -> None:
        """Wait until nothing of the store is used any more."""
        self._work.join()
        if self._is_closed:
            self._drop()


class IncomingFile:
    """Implements `storage.state.Install` as a file beside `data.mdb`."""

    def __init__(
        self,
        directory: Path,
        size: int,
        prepare: Callable[[Path, tuple[int, int], Pause], None],
        adopt: Callable[[Path, tuple[int, int]], None],
        fail: Callable[[BaseException], StorageFailure],
    ) -> None:
        """`prepare` checks the whole file, in a thread; `adopt` puts in what is kept of the old store, and ends that.

        Raises `CopyError` when there is no room.
        """
        self._directory = directory
        self._size = size
        self._prepare, self._adopt, self._fail = prepare, adopt, fail
        self._offset = 0
        self._checksum = 0
        self._tail = b""
        self._applied = (0, 0)
        self._work: Beside[bool] | None = None
        if free_bytes(directory) < size:
            raise CopyError(f"a copy of {size} bytes does not fit: {free_bytes(directory)} bytes are free")
        # NB: an abandoned copy may still be read for a moment, so that a name is never used again.
        try:
            self._descriptor, path = tempfile.mkstemp(".mdb", INCOMING, directory)
        except OSError as error:
            raise _trouble("a copy could not be taken in", error) from error
        self._path = Path(path)

    def write(self, offset: int, data: bytes) -> None:
        """Add the next piece."""
        if offset != self._offset or offset + len(data) > self._size:
            raise ValueError("this is not the next piece of the copy")
        view = memoryview(data)
        while view:
            try:
                written = os.pwrite(self._descriptor, view, self._offset)
            except OSError as error:
                raise self._failed("a copy could not be taken in", error) from error
            self._offset += written
            view = view[written:]
        body = self._tail + data
        self._tail = body[-_TRAILER_BYTES:]
        self._checksum = zlib.crc32(body[:-_TRAILER_BYTES], self._checksum)

    def _failed(self, what: str, error: BaseException) -> CopyError | StorageFailure:
        trouble = _trouble(what, error)
        return self._fail(trouble) if isinstance(trouble, StorageFailure) else trouble

    def check(self, applied: tuple[int, int]) -> None:
        """Begin to check the whole copy. Raises `ValueError` at once when it is not whole."""
        if self._offset != self._size or self._checksum != int.from_bytes(self._tail, "little"):
            raise ValueError("the copy is not whole")
        os.ftruncate(self._descriptor, self._size - _TRAILER_BYTES)
        self._applied = applied

        def work(pause: Pause) -> bool:
            self._prepare(self._path, applied, pause)
            return True

        self._work = Beside("store-install", work, FULL)

    @property
    def checked(self) -> bool:
        """Whether the check is done. Raises `ValueError`, `CopyError`, `StorageFailure`."""
        assert self._work is not None, "nothing is being checked"
        try:
            return self._work.ready
        except ValueError:
            raise
        except Exception as error:
            raise self._failed("a copy could not be checked", error) from error

    def finish(self) -> None:
        """Put the checked copy in the store's place."""
        assert self.checked, "only what was checked takes the store's place"
        try:
            self._adopt(self._path, self._applied)
            os.fsync(self._descriptor)
            os.replace(self._path, self._directory / "data.mdb")
            sync_directory(self._directory)
        except OSError as error:
            raise self._fail(error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Forget the pieces."""
        if self._work is not None:
            self._work.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._path.unlink(missing_ok=True)

    def join(self) -> None:
        """Wait until nothing is checked any more."""
        if self._work is not None:
            self._work.join()
