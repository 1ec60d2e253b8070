"""A fair multi-tenant worker: one tenant has a large backlog, and the others hardly notice.

Every message's group is its tenant. In a `fair` queue tenants take turns, so a quiet tenant's message waits for at most
eight messages of each other tenant, and not for the backlog.

    python -m examples.fair_tenants --backlog 2000
"""

from __future__ import annotations

import asyncio

from examples.queue_client import Broker, arguments

QUEUE = "tenants"
AT_A_TIME = 5


async def run(urls: str, backlog: int, quiet: int = 5, workers: int = 3, lease_ms: int = 30_000) -> list[str]:
    """Send a backlog of one tenant, then a message of each of some quiet ones; tenants in the order of being served."""
    served: list[str] = []
    async with Broker(urls) as broker:
        await broker.call("PUT", f"/v1/queues/{QUEUE}", {"fair": True})
        noisy = [{"body": f"report {number}", "group": "noisy"} for number in range(backlog)]
        for start in range(0, backlog, 1000):
            await broker.call("POST", f"/v1/queues/{QUEUE}/messages", {"messages": noisy[start : start + 1000]})
        small = [{"body": "one report", "group": f"quiet {number}"} for number in range(1, quiet + 1)]
        await broker.call("POST", f"/v1/queues/{QUEUE}/messages", {"messages": small})

        async def work(name: str) -> None:
            wish = {"max": AT_A_TIME, "wait_ms": 1_000, "lease_ms": lease_ms, "consumer": name}
            while len(served) < backlog + quiet:
                messages = (await broker.call("POST", f"/v1/queues/{QUEUE}/receive", wish))["messages"]
                served.extend(message["group"] for message in messages)
                if messages:
                    receipts = [message["receipt"] for message in messages]
                    await broker.call("POST", f"/v1/queues/{QUEUE}/ack", {"receipts": receipts})

        await asyncio.gather(*(work(f"worker {number}") for number in range(1, workers + 1)))
    return served


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--backlog", type=int, default=2000)
    given = parser.parse_args()
    served = asyncio.run(run(given.url, given.backlog, lease_ms=given.lease_ms))
    for tenant in sorted(set(served) - {"noisy"}):
        print(f"{tenant} was served after {served.index(tenant):,} of {len(served):,} messages")


if __name__ == "__main__":
    main()
