"""An order saga: reserve, pay and ship, each a service of its own with a queue of its own.

What a service does ends with one transaction: the message is acked, and what follows from it is sent, or neither. A
declined payment is compensated: the reservation is released. Shipping is down at first, so its messages are given up to
a dead-letter queue; when it is repaired they are redriven, and every order ends as if nothing had happened.

    python -m examples.order_saga --orders 40
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from examples.queue_client import Broker, RefusedError, arguments

Order = dict[str, Any]
Step = Callable[[Order], str]
"""Does a service's part for one order, and names the queue that the order goes to next."""
DECLINED_FROM_CENTS = 9_000


class OutOfOrderError(Exception):
    """A service is down."""


@dataclass
class Shop:
    """What the services know. Every step may be done twice for an order: a worker may die before its transaction."""

    reserved: set[int] = field(default_factory=set)
    paid: set[int] = field(default_factory=set)
    shipped: set[int] = field(default_factory=set)
    shipping_is_down: bool = True

    def reserve(self, order: Order) -> str:
        self.reserved.add(order["number"])
        return "saga-payments"

    def pay(self, order: Order) -> str:
        if order["cents"] >= DECLINED_FROM_CENTS:
            return "saga-releases"
        self.paid.add(order["number"])
        return "saga-shipments"

    def ship(self, order: Order) -> str:
        if self.shipping_is_down:
            raise OutOfOrderError("the harbour is frozen")
        self.shipped.add(order["number"])
        return "saga-ended"

    def release(self, order: Order) -> str:
        self.reserved.discard(order["number"])
        return "saga-ended"


async def serve(broker: Broker, queue: str, step: Step, lease_ms: int) -> None:
    """Work for one service, for ever."""
    wish = {"max": 10, "wait_ms": 5_000, "lease_ms": lease_ms, "consumer": step.__name__}
    while True:
        for message in (await broker.call("POST", f"/v1/queues/{queue}/receive", wish))["messages"]:
            held = {"queue": queue, "receipts": [message["receipt"]]}
            order = json.loads(message["body"])
            try:
                following = {"queue": step(order), "messages": [{"body": json.dumps(order)}]}
                steps = {"acks": [held], "sends": [following]}
            except OutOfOrderError as error:
                steps = {"nacks": [{**held, "reason": str(error), "delay_ms": 0}]}
            try:
                await broker.call("POST", "/v1/transactions", steps)
            except RefusedError as refused:
                if refused.status != 409:  # 409: the lease was over, and somebody else has the order now
                    raise


async def until(count: Callable[[], Awaitable[int]], least: int) -> None:
    """Wait until there are so many."""
    while True:
        if await count() >= least:
            return
        await asyncio.sleep(0.05)


async def run(urls: str, orders: int, lease_ms: int = 30_000) -> tuple[Shop, Counter[str]]:
    """Let so many orders run through; the shop, and how many messages were where in between and at the end."""
    shop, seen = Shop(), Counter[str]()
    async with Broker(urls) as broker:

        async def ready(queue: str) -> int:
            return int((await broker.call("GET", f"/v1/queues/{queue}"))["ready"])

        await broker.call("PUT", "/v1/queues/saga-failed", {})
        given_up = {"attempts_max": 3, "dead_letter_queue": "saga-failed"}
        for queue in ("saga-orders", "saga-payments", "saga-shipments", "saga-releases", "saga-ended"):
            await broker.call("PUT", f"/v1/queues/{queue}", {} if queue == "saga-ended" else given_up)
        services = {
            "saga-orders": shop.reserve,
            "saga-payments": shop.pay,
            "saga-shipments": shop.ship,
            "saga-releases": shop.release,
        }
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(serve(broker, queue, step, lease_ms)) for queue, step in services.items()]
            messages = [
                {"body": json.dumps({"number": number, "cents": 250 * number})} for number in range(1, orders + 1)
            ]
            await broker.call("POST", "/v1/queues/saga-orders/messages", {"messages": messages})
            declined = sum(250 * number >= DECLINED_FROM_CENTS for number in range(1, orders + 1))
            await until(lambda: ready("saga-failed"), orders - declined)
            seen["given up"] = await ready("saga-failed")
            shop.shipping_is_down = False
            redrive = {"filter": {"dead": {"reason": ["the harbour is frozen"]}}}
            await broker.call("POST", "/v1/queues/saga-failed/redrive", redrive)
            await until(lambda: ready("saga-ended"), orders)
            seen["ended"] = await ready("saga-ended")
            for worker in workers:
                worker.cancel()
    return shop, seen


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--orders", type=int, default=40)
    given = parser.parse_args()
    shop, seen = asyncio.run(run(given.url, given.orders, given.lease_ms))
    print(
        f"{seen['ended']} orders have ended: {len(shop.shipped)} shipped, {seen['ended'] - len(shop.shipped)} declined"
    )
    print(f"{seen['given up']} were given up while shipping was down, and redriven; {len(shop.reserved)} are reserved")


if __name__ == "__main__":
    main()
