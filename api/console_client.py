"""The command line's way to a node: one HTTP request, tried on each known node in turn.

Only the standard library is imported, and only when a request is made: `trimaran send` should feel like `echo`.
"""

from __future__ import annotations

import json
import secrets
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

from api.console import CommandError, Exit, UsageError
from api.own_key import authorization

CONNECT_TIMEOUT_S = 3.0
"""How long a node may take to accept: one that does not by then is as good as down, and another is asked."""

ANSWER_TIMEOUT_S = 30.0
"""How long a node may take to answer, on top of what the request itself waits: longer than it holds any request."""


class Unavailable(CommandError):
    """No node could carry the request out; the message says why, node by node."""

    code = Exit.UNAVAILABLE


class Refused(CommandError):
    """A node answered that it will not; `problem` is what it said (RFC 9457: title, detail, remedy, …)."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(explain(status, problem))
        self.status = status
        self.problem = problem


def explain(status: int, problem: dict[str, Any]) -> str:
    """What went wrong and what to do about it, in one or two lines."""
    title, detail, remedy = (str(problem.get(name) or "").rstrip(".") for name in ("title", "detail", "remedy"))
    said = [part for part in (title, detail) if part] or [f"HTTP {status}"]
    line = ": ".join(dict.fromkeys(said))
    return f"{line}\n{remedy}." if remedy else line


class Client:
    """A few nodes, by URL. The node that answered last is asked first."""

    def __init__(self, urls: str) -> None:
        """`urls`: one or more, comma-separated. Raises `UsageError`."""
        self.urls = [url.strip().rstrip("/") for url in urls.split(",") if url.strip()]
        if not self.urls:
            raise UsageError("--url is empty: give at least one, such as http://127.0.0.1:7700")
        for url in self.urls:
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise UsageError(f"--url {url!r} is no URL: http://HOST:PORT is expected")
        self._authorization = authorization()
        self._connections: dict[str, HTTPConnection] = {}

    def request(self, method: str, path: str, content: Any = None, *, wait_ms: int = 0) -> Any:
        """Ask for `path` and return the decoded answer.

        Every node is tried once, under one Idempotency-Key, so that a write that one node left unanswered is not made
        twice by the next. Raises `Refused` and `Unavailable`.
        """
        body = None if content is None else json.dumps(content).encode()
        headers = {"Accept": "application/json", "Connection": "keep-alive"}
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        if body is not None:
            headers["Content-Type"] = "application/json"
        if method != "GET":
            headers["Idempotency-Key"] = secrets.token_hex(16)
        failures: list[str] = []
        for url in list(self.urls):
            try:
                status, answer = self._ask(url, method, path, body, headers, wait_ms)
            except (OSError, HTTPException) as error:
                self._connections.pop(url, None)
                failures.append(f"{url}: {_reason(error)}")
                continue
            if status != 503:
                self.urls.remove(url)
                self.urls.insert(0, url)
                if status >= 400:
                    raise Refused(status, answer if isinstance(answer, dict) else {})
                return answer
            outcome = answer.get("outcome") if isinstance(answer, dict) else None
            failures.append(f"{url}: {explain(status, answer or {})}" + (f" (outcome: {outcome})" if outcome else ""))
        raise Unavailable("\n".join(failures))

    def _ask(
        self, url: str, method: str, path: str, body: bytes | None, headers: dict[str, str], wait_ms: int
    ) -> tuple[int, Any]:
        connection = self._connections.get(url)
        if connection is None:
            connection = self._connections[url] = _connect(url)
        if connection.sock is not None:
            connection.sock.settimeout(ANSWER_TIMEOUT_S + wait_ms / 1000)
        connection.request(method, urlsplit(url).path + path, body, headers)
        response = connection.getresponse()
        content = response.read()
        try:
            return response.status, json.loads(content) if content else None
        except ValueError:
            return response.status, {
                "title": f"HTTP {response.status}",
                "detail": content[:200].decode(errors="replace"),
            }

    def close(self) -> None:
        """Let go of the connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def queue_path(queue: str, *rest: str) -> str:
    """The path of a queue or of something in it. Raises `UsageError` for an empty name, which would mean all queues."""
    if not queue:
        raise UsageError("the queue's name is empty")
    return "/".join(("/v1/queues", quote(queue, safe=""), *rest))


def _connect(url: str) -> HTTPConnection:
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT_S)
    connection.connect()
    return connection


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
