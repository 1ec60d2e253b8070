"""What chaos needs of the machine: root, tools, and a kernel that lets it build a world of its own.

The world is a set of new namespaces (network, mounts, processes). Whatever happens in it, nothing outside is touched,
and when its first process ends, even by SIGKILL, the kernel takes everything with it: processes, networks, mounts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

PACKAGES = {
    "ip": "iproute2",
    "nft": "nftables",
    "strace": "strace",
    "mkfs.ext4": "e2fsprogs",
    "losetup": "mount",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
"""Which Debian package has which tool."""
INSTALL_S = 300
WORLD = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

_TRIAL = r"""
set -e
mount -t tmpfs tmpfs /run && mkdir /run/netns /run/disk
ip link add bridge0 type bridge
ip netns add trial
nft 'table bridge trial { chain rules { type filter hook forward priority 0; numgen random mod 100 < 20 drop; }; }'
nsenter --net=/run/netns/trial \
    nft 'table ip trial { chain rules { type nat hook output priority -100; tcp dport 9 dnat to 127.0.0.1:9; }; }'
truncate -s 16M /run/image && mkfs.ext4 -q /run/image && mount -o loop /run/image /run/disk
"""


def run(*argv: str, given: str = "") -> str:
    """Run a tool and return what it printed. Raises `RuntimeError` with what it complained about."""
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def missing_packages() -> list[str]:
    """Debian packages of the tools that are not there."""
    return sorted({package for tool, package in PACKAGES.items() if shutil.which(tool) is None})


def install() -> None:
    """Install what is missing, if this is root on a Debian machine."""
    packages = missing_packages()
    if not packages or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    sys.stderr.write(f"==> installing {', '.join(packages)}\n")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    get = ("apt-get", "-q", "-o", "DPkg::Lock::Timeout=60")
    for argv in ((*get, "update"), (*get, "install", "-y", "--no-install-recommends", *packages)):
        try:
            subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, timeout=INSTALL_S, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            sys.stderr.write(f"==> {' '.join(argv)} failed: {error}\n")
            return


def obstacle() -> str | None:
    """Why chaos cannot run here, in one line, or None."""
    if os.geteuid() != 0:
        return "chaos needs root, for namespaces, loop devices and strace"
    packages = missing_packages()
    if packages:
        return f"chaos needs the packages {', '.join(packages)}"
    try:
        run(*WORLD, "sh", "-c", _TRIAL)
    except RuntimeError as error:
        return f"chaos cannot build its world here: {' '.join(str(error).split()[-20:])}"
    return None


def in_world(argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in a new world. The shell collects orphans, as the first process must."""
    return [*WORLD, "sh", "-c", '"$@"; exit $?', "sh", *argv]
