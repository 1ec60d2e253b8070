"""A queue over plain HTTP, as an application would write it: about all that a client of Trimaran has to do.

Every write carries an Idempotency-Key and is made again, on the next node, until it is answered. However often that
happens, it takes effect once, so a dead node is a delay and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

DEFAULT_URL = "http://127.0.0.1:7700,http://127.0.0.1:7701,http://127.0.0.1:7702"
WAIT_MS = 5_000
PATIENCE_S = 60.0
PAUSE_S = 0.1


class QueueError(Exception):
    """A request was refused, or not answered by any node in time."""


class RefusedError(QueueError):
    """The answer is no; `status` says why in HTTP's terms."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Broker:
    """`async with Broker(urls) as broker`: any request to any of the nodes, made again until it is answered."""

    def __init__(self, urls: str) -> None:
        self._urls = itertools.cycle([url.strip().rstrip("/") for url in urls.split(",")])
        self._url = next(self._urls)

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30, connect=2))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def call(self, method: str, path: str, document: Any = None, key: str | None = None) -> Any:
        """The answer to a request. `key` names a write across restarts. Raises `RefusedError` and `QueueError`."""
        headers = {} if method == "GET" else {"Idempotency-Key": key or str(uuid.uuid4())}
        deadline_s = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            url = self._url + path
            try:
                async with self._http.request(method, url, json=document, headers=headers) as response:
                    answer = await response.json(content_type=None)
                    if response.status < 300:
                        return answer
                    if response.status != 503:
                        raise RefusedError(f"{url}: {response.status} {answer}", response.status)
                    trouble = str(answer)
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                trouble = repr(error)
            if asyncio.get_running_loop().time() > deadline_s:
                raise QueueError(f"{url}: no answer within {PATIENCE_S:.0f} s; last: {trouble}")
            self._url = next(self._urls)
            await asyncio.sleep(PAUSE_S)


class Queue(Broker):
    """`async with Queue(urls, "orders") as queue`: creates the queue if need be."""

    def __init__(self, urls: str, name: str) -> None:
        super().__init__(urls)
        self.name = name

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            # Putting replaces settings: a queue that somebody has set up is left as it is.
            try:
                await self._call("GET", "", None)
            except RefusedError as refused:
                if refused.status != 404:
                    raise
                await self._call("PUT", "", {})
        except BaseException:
            await self._http.close()
            raise
        return self

    async def send(self, documents: Sequence[Any], key: str | None = None) -> list[int]:
        """Send documents as JSON, all or none; returns the messages' ids. `key` names this send across restarts."""
        messages = [{"body": json.dumps(document, ensure_ascii=False)} for document in documents]
        answer = await self._call("POST", "/messages", {"messages": messages}, key)
        return [message["message_id"] for message in answer["messages"]]

    async def receive(self, max_messages: int, lease_ms: int) -> list[tuple[str, Any]]:
        """Receipts and documents of up to `max_messages`; waits a while if there are none."""
        wish = {"max": max_messages, "wait_ms": WAIT_MS, "lease_ms": lease_ms}
        answer = await self._call("POST", "/receive", wish)
        return [(message["receipt"], json.loads(message["body"])) for message in answer["messages"]]

    async def ack(self, receipts: Sequence[str]) -> int:
        """Messages are done; returns how many were not ours any more, and so will come again."""
        answer = await self._call("POST", "/ack", {"receipts": list(receipts)})
        return sum(result["status"] != "acked" for result in answer["results"])

    async def _call(self, method: str, path: str, document: Any, key: str | None = None) -> Any:
        return await self.call(method, f"/v1/queues/{self.name}{path}", document, key)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows `--url` and `--lease-ms`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--url", default=DEFAULT_URL, help="the cluster's nodes, comma-separated")
    parser.add_argument("--lease-ms", type=int, default=30_000, help="how soon the work of one who died is done again")
    return parser
