"""One topic, three consumers: invoices wants every order, sales the large ones, and shipping those of its country.

The shop publishes each order once and knows none of them. Run it against any node:

    python -m examples.topic_with_filters --url http://127.0.0.1:7700
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import aiohttp

TOPIC = "shop-orders"
SUBSCRIPTIONS: dict[str, dict[str, Any]] = {
    "shop-invoices": {"filter": {"kind": ["order", "refund"]}},
    "shop-sales": {"filter": {"total": [{"numeric": [">=", 100]}]}, "filter_on": "body"},
    "shop-shipping": {"pattern": "*.de.#", "filter": {"kind": ["order"]}},
}
"""What each queue wants, by its name."""
ORDERS: list[dict[str, Any]] = [
    {"kind": "order", "key": "orders.de", "total": 150},
    {"kind": "order", "key": "orders.fr.express", "total": 20},
    {"kind": "refund", "key": "orders.de", "total": 120},
    {"kind": "inquiry", "key": "letters.de.berlin", "total": 0},
]


def message(order: dict[str, Any]) -> dict[str, Any]:
    """An order as it is published: its kind beside the body, where filters of attributes look."""
    return {"body": json.dumps(order), "attributes": {"kind": order["kind"]}, "routing_key": order["key"]}


class Shop:
    """A shop that publishes."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def open(self) -> None:
        """Make the topic, and a subscribed queue for each consumer."""
        await self._ask("PUT", f"/v1/topics/{TOPIC}", {})
        for queue, wanted in SUBSCRIPTIONS.items():
            await self._ask("PUT", f"/v1/queues/{queue}", {})
            await self._ask("PUT", f"/v1/topics/{TOPIC}/subscriptions/{queue}", {"queue": queue, **wanted})

    async def why_not(self, order: dict[str, Any]) -> dict[str, str]:
        """Which consumers would not get an order, and why."""
        told = await self._ask("POST", f"/v1/topics/{TOPIC}/messages?dry_run=true", message(order))
        return {each["queue"]: each["why"] for each in told["messages"][0]["subscriptions"] if not each["takes"]}

    async def publish(self, orders: list[dict[str, Any]]) -> list[list[str]]:
        """Publish orders, all or none; returns which queues each went to."""
        told = await self._ask("POST", f"/v1/topics/{TOPIC}/messages", {"messages": list(map(message, orders))})
        return [[each["queue"] for each in published["queues"]] for published in told["messages"]]

    async def take(self, queue: str) -> list[dict[str, Any]]:
        """Receive and ack the orders that a consumer has got."""
        told = await self._ask("POST", f"/v1/queues/{queue}/receive", {"max": 100})
        receipts = [each["receipt"] for each in told["messages"]]
        if receipts:
            await self._ask("POST", f"/v1/queues/{queue}/ack", {"receipts": receipts})
        return [json.loads(each["body"]) for each in told["messages"]]

    async def _ask(self, method: str, path: str, document: dict[str, Any]) -> Any:
        async with self._http.request(method, path, json=document) as response:
            answer = await response.json()
            if response.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer}")
            return answer


async def main(url: str) -> None:
    """Publish the orders, and say who got which."""
    async with aiohttp.ClientSession(url) as http:
        shop = Shop(http)
        await shop.open()
        for queue, why in (await shop.why_not(ORDERS[3])).items():
            print(f"{queue} would not get an inquiry: {why}")
        for order, queues in zip(ORDERS, await shop.publish(ORDERS), strict=True):
            print(f"{order['kind']} {order['key']} of {order['total']} went to {', '.join(queues) or 'nobody'}")
        for queue in SUBSCRIPTIONS:
            print(f"{queue} took {[order['total'] for order in await shop.take(queue)]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:7700")
    asyncio.run(main(parser.parse_args().url))
