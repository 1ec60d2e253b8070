"""The feeder: has the app notify many users, waits until the outbox has everything, and checks it.

    python -m examples.notifications.feeder --count 100000

The app and a worker must run. Ends with 0 if every notification was sent exactly once and unchanged.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from examples.notifications.corpus import notifications
from examples.notifications.outbox import Notification, Outbox

BATCH = 500
SENDERS = 4
SILENCE_MAX_S = 60.0
POLL_S = 0.2


async def feed(app_url: str, batches: Iterator[tuple[Notification, ...]]) -> None:
    """Have the app notify; a request that fails is made again, which is safe because notifications have ids."""

    async def sender() -> None:
        for batch in batches:
            deadline_s = time.monotonic() + SILENCE_MAX_S
            while not await _post(http, f"{app_url}/notify/many", batch):
                if time.monotonic() > deadline_s:
                    raise SystemExit(f"{app_url} does not take notifications: is the app running?")
                await asyncio.sleep(POLL_S)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90)) as http, asyncio.TaskGroup() as group:
        for _ in range(SENDERS):
            group.create_task(sender())


async def _post(http: aiohttp.ClientSession, url: str, batch: tuple[Notification, ...]) -> bool:
    try:
        async with http.post(url, json=batch) as response:
            return response.status == 202
    except (aiohttp.ClientError, TimeoutError):
        return False


async def drained(outbox: Outbox, count: int) -> bool:
    """Wait until `count` were sent since the start; gives up when nothing has come for long."""
    seen, moved_s = -1, time.monotonic()
    while True:
        now = outbox.count()
        if now >= count:
            return True
        if now != seen:
            seen, moved_s = now, time.monotonic()
            print(f"{now:,} of {count:,} are sent", flush=True)
        elif time.monotonic() - moved_s > SILENCE_MAX_S:
            return False
        await asyncio.sleep(POLL_S)


def differences(outbox: Outbox, expected: Iterator[Notification], prefix: str) -> list[str]:
    """What is missing, too many or changed among those whose ids begin with `prefix`."""
    sent = (notification for notification in outbox.all() if notification["id"].startswith(prefix))
    pairs = itertools.zip_longest(expected, sent)
    return [f"queued {wanted}, sent {found}" for wanted, found in pairs if wanted != found]


async def run(app_url: str, path: Path, count: int, seed: int) -> int:
    outbox, prefix = Outbox(path), f"n{secrets.token_hex(4)}"
    try:
        before, began_s = outbox.count(), time.monotonic()
        source = notifications(count, seed, prefix)
        await feed(app_url, iter(lambda: tuple(itertools.islice(source, BATCH)), ()))
        print(f"{count:,} are queued after {time.monotonic() - began_s:.1f} s", flush=True)
        await drained(outbox, before + count)
        wrong = differences(outbox, notifications(count, seed, prefix), prefix)
        print(f"{count:,} notifications, {len(wrong):,} wrong, after {time.monotonic() - began_s:.1f} s")
        for line in wrong[:5]:
            print(line, file=sys.stderr)
        return 1 if wrong else 0
    finally:
        outbox.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--app", default="http://127.0.0.1:8080", help="where the app is")
    parser.add_argument("--outbox", type=Path, default=Path("outbox.sqlite"))
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(asyncio.run(run(options.app, options.outbox, options.count, options.seed)))


if __name__ == "__main__":
    main()
