"""The worker: takes notifications from the queue and sends them to the outbox.

    python -m examples.notifications.worker --outbox outbox.sqlite

Start as many as you like.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from examples.notifications.outbox import Outbox
from examples.queue_client import Queue, arguments

BATCH = 500


async def work(urls: str, outbox: Outbox, lease_ms: int) -> None:
    """Send notifications until cancelled."""
    async with Queue(urls, "notifications") as queue:
        while True:
            received = await queue.receive(BATCH, lease_ms)
            if not received:
                continue
            new = outbox.add(notification for _, notification in received)
            # Only now: were we to die before this line, they would come again, and the outbox would know them.
            late = await queue.ack([receipt for receipt, _ in received])
            print(f"sent {new}, known already {len(received) - new}, acked too late {late}", flush=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--outbox", type=Path, default=Path("outbox.sqlite"))
    options = parser.parse_args()
    outbox = Outbox(options.outbox)
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(outbox):
        asyncio.run(work(options.url, outbox, options.lease_ms))


if __name__ == "__main__":
    main()
