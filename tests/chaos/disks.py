"""A disk for each node: an ext4 file system in a file, so that its power can be cut and it can be full.

The images lie in memory: what a file system has synced into its image is what a real disk would hold, and no sync waits
for this machine's disk. Must run in a world (`tests.chaos.tools`).
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import time
from pathlib import Path

from tests.chaos.tools import run
from tests.processes.nodes import GONE_S, POLL_S

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
"""Stop at once, and write nothing more: neither data nor the file system's own journal."""
_PAGE = 4096


class Disk:
    """One node's disk, mounted at `place`."""

    def __init__(self, place: Path, size_bytes: int) -> None:
        self.place, self.image = place, place.with_suffix(".img")
        self.place.mkdir(parents=True)
        with self.image.open("wb") as image:
            image.truncate(size_bytes)
        run("mkfs.ext4", "-q", "-m", "0", str(self.image))
        self.mount()

    def mount(self) -> None:
        """Bring it back as it is."""
        run("mount", "-o", "loop", str(self.image), str(self.place))

    def cut_power(self) -> None:
        """From now on nothing reaches the disk. What was not synced is lost."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("i", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Take it away. Nobody may use it; threads of a process that was killed may be about to let go of it."""
        deadline_s = time.monotonic() + GONE_S
        while True:
            try:
                run("umount", str(self.place))
                return
            except RuntimeError:
                if time.monotonic() > deadline_s:
                    raise
            time.sleep(POLL_S)

    def power_on(self) -> None:
        """Mount what is really on the disk."""
        self.unmount()
        self.mount()

    def destroy(self) -> None:
        """Take it away for ever."""
        self.unmount()
        self.image.unlink()

    def fill(self, leave_bytes: int) -> None:
        """Fill it until only so many bytes are free."""
        found = os.statvfs(self.place)
        size = found.f_bavail * found.f_frsize - leave_bytes
        if size > 0:
            with self.ballast.open("wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, size)

    def empty(self) -> None:
        """Take away what `fill` put there."""
        self.ballast.unlink(missing_ok=True)

    @property
    def ballast(self) -> Path:
        """The file that fills the disk."""
        return self.place / "ballast"


def flip(path: Path, rng: random.Random, *, count: int = 0, share: float = 0.0) -> None:
    """Flip a bit in each of `count` pages of a file, or in a share of them, as a bad disk would.

    LMDB's own two pages are left out: it has no checksum for them.
    """
    pages = path.stat().st_size // _PAGE
    with path.open("r+b") as file:
        for page in rng.sample(range(2, pages), count or int(pages * share)):
            offset = page * _PAGE + rng.randrange(_PAGE)
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1 << rng.randrange(8)]))
        file.flush()
        os.fsync(file.fileno())
