"""The shop: takes orders, asks for their payment, and learns what became of it.

python -m examples.orders.shop --port 8081 --data shop.sqlite
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from examples.queue_client import Queue, arguments

BATCH = 100


class Orders:
    """The shop's book. An order is *new*, then *asked* for payment, then *paid* or *declined*, and nothing after."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT, cents INTEGER, state TEXT)"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS shop (name TEXT)")
        self._db.execute(
            "INSERT INTO shop SELECT ? WHERE NOT EXISTS (SELECT * FROM shop)", (f"shop-{secrets.token_hex(4)}",)
        )
        self._shop = self._db.execute("SELECT name FROM shop").fetchone()[0]

    def name(self, order: int) -> str:
        """What the world calls an order: no other shop has one of that name, nor this one after a fresh start."""
        return f"{self._shop}-{order}"

    def number(self, name: str) -> int | None:
        """The order of that name, if it is one of this shop's."""
        shop, _, order = name.rpartition("-")
        return int(order) if shop == self._shop else None

    def add(self, item: str, cents: int) -> int:
        cursor = self._db.execute("INSERT INTO orders (item, cents, state) VALUES (?, ?, 'new')", (item, cents))
        return int(cursor.lastrowid or 0)

    def get(self, order: int) -> dict[str, Any] | None:
        row = self._db.execute("SELECT * FROM orders WHERE id = ?", (order,)).fetchone()
        return dict(row) if row else None

    def move(self, order: int, before: tuple[str, ...], after: str) -> bool:
        """Change an order's state if it is one of `before`."""
        marks = ",".join("?" * len(before))
        cursor = self._db.execute(
            f"UPDATE orders SET state = ? WHERE id = ? AND state IN ({marks})", (after, order, *before)
        )
        return cursor.rowcount == 1

    def waiting(self) -> list[dict[str, Any]]:
        """Orders whose payment was not asked for: the shop was interrupted."""
        return [dict(row) for row in self._db.execute("SELECT * FROM orders WHERE state = 'new'")]


ORDERS = web.AppKey("orders", Orders)
PAYMENTS = web.AppKey("payments", Queue)


async def take_order(request: web.Request) -> web.Response:
    try:
        document = json.loads(await request.read())
    except ValueError:
        document = None
    match document:
        case {"item": str(item), "cents": int(cents)} if item and cents > 0:
            orders = request.app[ORDERS]
            order = orders.add(item, cents)
            await ask(request.app[PAYMENTS], orders, {"id": order, "cents": cents})
            return web.json_response(orders.get(order), status=201)
    raise web.HTTPBadRequest(text='an order is {"item": …, "cents": …}')


async def show_order(request: web.Request) -> web.Response:
    order = request.app[ORDERS].get(int(request.match_info["order"]))
    if order is None:
        raise web.HTTPNotFound(text="there is no such order")
    return web.json_response(order)


async def ask(payments: Queue, orders: Orders, order: dict[str, Any]) -> None:
    """Ask for an order's payment. Doing so twice asks once, because the request's key is the order."""
    name = orders.name(order["id"])
    await payments.send([{"order": name, "cents": order["cents"]}], key=f"pay-{name}")
    orders.move(order["id"], ("new",), "asked")


async def learn(results: Queue, orders: Orders, lease_ms: int) -> None:
    """Take the results of payments into the book, until cancelled."""
    while True:
        received = await results.receive(BATCH, lease_ms)
        for _, result in received:
            # A result that came before is no news: the order is in its last state already.
            order = orders.number(result["order"])
            if order is not None:
                orders.move(order, ("new", "asked"), "paid" if result["paid"] else "declined")
        if received:
            await results.ack([receipt for receipt, _ in received])


def application(urls: str, path: Path, lease_ms: int) -> web.Application:
    async def run(app: web.Application) -> AsyncIterator[None]:
        orders = app[ORDERS] = Orders(path)
        async with Queue(urls, "payments") as app[PAYMENTS], Queue(urls, "payment-results") as results:
            for order in orders.waiting():
                await ask(app[PAYMENTS], orders, order)
            learning = asyncio.create_task(learn(results, orders, lease_ms))
            yield
            learning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await learning

    app = web.Application()
    app.cleanup_ctx.append(run)
    app.add_routes([web.post("/orders", take_order), web.get(r"/orders/{order:\d{1,15}}", show_order)])
    return app


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--data", type=Path, default=Path("shop.sqlite"))
    options = parser.parse_args()
    web.run_app(
        application(options.url, options.data, options.lease_ms), host="127.0.0.1", port=options.port, access_log=None
    )


if __name__ == "__main__":
    main()
