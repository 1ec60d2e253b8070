"""The payments service: settles each order once, and says so to whoever asked.

python -m examples.orders.payments --ledger ledger.sqlite
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

from examples.queue_client import Queue, arguments

BATCH = 100
CENTS_MAX = 1_000_000
"""More than ten thousand is declined, so that there is something to see."""


class Ledger:
    """Who paid what, each order once."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS payments (shop_order TEXT PRIMARY KEY, cents INTEGER, paid INTEGER)"
        )

    def settle(self, order: str, cents: int) -> bool:
        """Charge for an order, unless that was done before; returns whether it is paid."""
        self._db.execute("INSERT OR IGNORE INTO payments VALUES (?, ?, ?)", (order, cents, cents <= CENTS_MAX))
        return bool(self._db.execute("SELECT paid FROM payments WHERE shop_order = ?", (order,)).fetchone()[0])

    def total(self) -> tuple[int, int]:
        """(orders settled, cents taken)"""
        return tuple(self._db.execute("SELECT count(*), coalesce(sum(cents * paid), 0) FROM payments").fetchone())

    def close(self) -> None:
        self._db.close()


async def work(urls: str, ledger: Ledger, lease_ms: int) -> None:
    """Settle payments until cancelled."""
    async with Queue(urls, "payments") as payments, Queue(urls, "payment-results") as results:
        while True:
            for receipt, request in await payments.receive(BATCH, lease_ms):
                paid = ledger.settle(request["order"], request["cents"])
                # Sent before the ack and under the order's own key: whoever repeats this repeats nothing.
                await results.send([{"order": request["order"], "paid": paid}], key=f"paid-{request['order']}")
                await payments.ack([receipt])
                print(f"{request['order']}: {'paid' if paid else 'declined'}", flush=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--ledger", type=Path, default=Path("ledger.sqlite"))
    options = parser.parse_args()
    ledger = Ledger(options.ledger)
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(ledger):
        asyncio.run(work(options.url, ledger, options.lease_ms))


if __name__ == "__main__":
    main()
