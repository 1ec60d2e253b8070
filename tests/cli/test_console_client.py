"""The command line's client: several nodes, one write."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from api.console import UsageError
from api.console_client import Client, Refused, Unavailable, queue_path

Request = tuple[str, str, str | None]


@contextmanager
def server(status: int, answer: object) -> Iterator[tuple[str, list[Request]]]:
    """A node that always answers this; yields its URL and the requests it saw."""
    seen: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((self.command, self.path, self.headers.get("Idempotency-Key")))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}", seen
        finally:
            httpd.shutdown()
            thread.join()


NOBODY = "http://127.0.0.1:1"
LOST = {"title": "The cluster did not answer", "detail": "No majority", "outcome": "unknown"}


def test_nodes_are_tried_in_turn_under_one_idempotency_key() -> None:
    with ExitStack() as stack:
        troubled, troubled_saw = stack.enter_context(server(503, LOST))
        healthy, healthy_saw = stack.enter_context(server(201, {"ok": True}))
        client = Client(f"{NOBODY}, {troubled} ,{healthy}/")
        assert client.request("POST", "/v1/x", {}) == {"ok": True}
        assert troubled_saw == healthy_saw
        assert healthy_saw[0][2]
        client.request("POST", "/v1/x", {})
        assert len(troubled_saw) == 1, "the node that answered is asked first"
        assert healthy_saw[0][2] != healthy_saw[1][2], "another write has another key"


def test_a_read_has_no_key() -> None:
    with server(200, {}) as (url, saw):
        Client(url).request("GET", "/v1/queues")
        assert saw == [("GET", "/v1/queues", None)]


def test_when_no_node_can_each_is_told_of() -> None:
    with server(503, LOST) as (url, _), pytest.raises(Unavailable) as trouble:
        Client(f"{NOBODY},{url}").request("POST", "/v1/x", {})
    assert str(trouble.value).splitlines() == [
        f"{NOBODY}: nothing listens there",
        f"{url}: The cluster did not answer: No majority (outcome: unknown)",
    ]


def test_a_refusal_is_final() -> None:
    problem = {"title": "Too large", "detail": "5 bytes are allowed.", "remedy": "Send less."}
    with ExitStack() as stack:
        refusing, _ = stack.enter_context(server(413, problem))
        other, other_saw = stack.enter_context(server(200, {}))
        with pytest.raises(Refused, match="Too large: 5 bytes are allowed\nSend less.") as refusal:
            Client(f"{refusing},{other}").request("POST", "/v1/x", {})
        assert (refusal.value.status, other_saw) == (413, [])


@pytest.mark.parametrize("urls", ["", " , ", "127.0.0.1:7700", "ftp://x", "http://"])
def test_urls_that_are_none(urls: str) -> None:
    with pytest.raises(UsageError):
        Client(urls)


def test_a_queues_name_stays_one_path_segment() -> None:
    assert queue_path("../x?y", "ack") == "/v1/queues/..%2Fx%3Fy/ack"
