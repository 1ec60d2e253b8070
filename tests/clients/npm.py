"""The clients in JavaScript: where they lie, and how they come there. `make test` installs them, by the lockfile."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

PLACE = Path(__file__).parent / "npm"
NODE_MIN = 20
INSTALL_S = 300


def obstacle() -> str | None:
    """Why they cannot be run here, in one line, or None."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "clients in JavaScript need node and npm"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    if int(version.removeprefix("v").partition(".")[0] or 0) < NODE_MIN:
        return f"clients in JavaScript need node {NODE_MIN}, this is {version.strip()}"
    if not is_installed():
        return "clients in JavaScript are not installed: python -m tests.clients.npm"
    return None


@asynccontextmanager
async def story(log: Path, key: tuple[str, str], *argv: str) -> AsyncIterator[Process]:
    """Run a program of theirs with an access key (id, secret). It does not outlive the block. `log` gets its stderr."""
    identity = dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), key, strict=True))
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            "node", *argv, cwd=PLACE, env=os.environ | identity, stdout=asyncio.subprocess.PIPE, stderr=stderr
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def is_installed() -> bool:
    """Whether what the lockfile says is there."""
    try:
        wanted, found = (
            json.loads((PLACE / name).read_text())["packages"]
            for name in ("package-lock.json", "node_modules/.package-lock.json")
        )
    except FileNotFoundError:
        return False
    versions = {name: package["version"] for name, package in wanted.items() if name}
    return versions == {name: package["version"] for name, package in found.items()}


def install() -> None:
    """Install what is missing, if that can be done."""
    if is_installed() or shutil.which("npm") is None:
        return
    sys.stderr.write("==> installing clients in JavaScript\n")
    argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        subprocess.run(argv, cwd=PLACE, timeout=INSTALL_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"==> {' '.join(argv)} failed: {error}\n")


if __name__ == "__main__":
    install()
