"""The port of a shard and those who come to it: members are let in, strangers cost little and get nothing parsed."""

from __future__ import annotations

import asyncio
import pickle
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from cluster import sockets
from cluster.process import Rarely
from cluster.sockets import STRANGERS_MAX, Port, dial
from cluster.tls import Tls
from cluster.wire import HELLO, PING, VERSION, Connection, Hello, frame, hello_decoder
from tests.cluster.certs import Authority

PATIENCE_S = 10.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "other")


@pytest.fixture
def log() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as lines:
        yield lines  # type: ignore[misc]


def hello(name: str) -> bytes:
    return frame(HELLO, msgspec.json.encode(Hello(VERSION, "c", 0, "replica", name)))


class Host:
    """A port that greets whoever says a hello. `parsed`: what got as far as a frame; `met`: who was let in."""

    def __init__(self, tls: Tls | None) -> None:
        self.port_ = Port(self._make, tls)
        self.parsed: list[tuple[int, bytes]] = []
        self.met: dict[str, Connection] = {}
        self.lost: list[Connection] = []
        self.pinged = asyncio.Event()
        self.made = 0

    def _make(self) -> Connection:
        self.made += 1
        return Connection(self._on_frame, self.lost.append)

    def _on_frame(self, connection: Connection, kind: int, payload: memoryview) -> None:
        self.parsed.append((kind, bytes(payload)))
        if connection.peer is None:
            if kind != HELLO:
                raise ValueError("a connection begins with a hello")
            said = hello_decoder.decode(payload)
            if connection.certified not in (None, said.name):
                connection.refuse("not your name")
                return
            connection.introduce(said)
            self.met[said.name] = connection
            connection.send(HELLO, msgspec.json.encode(Hello(VERSION, "c", 0, "replica", "n1")))
        elif kind == PING:
            self.pinged.set()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


@asynccontextmanager
async def host(tls: Tls | None = None) -> AsyncIterator[tuple[Host, int]]:
    served = Host(tls)
    port = await served.port_.listen("127.0.0.1", 0)
    try:
        yield served, port
    finally:
        await served.port_.close()
        for connection in served.met.values():
            connection.close()


async def visit(port: int, said: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """What still came until the port closed the connection."""
    writer = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(said)
            return await reader.read()
    except (ConnectionError, ssl.SSLError):
        return b""
    finally:
        if writer is not None:
            writer.transport.abort()


async def come_in(port: int, name: str, tls: Tls | None, target: str = "n1") -> Connection:
    """Dial as the node `name` and wait for the answer to the hello. Raises `ConnectionError`."""
    answered = asyncio.Event()

    def on_frame(connection: Connection, kind: int, payload: memoryview) -> None:
        if kind == HELLO:
            connection.introduce(hello_decoder.decode(payload))
            answered.set()

    connection = Connection(on_frame, lambda connection: answered.set())
    await dial(connection, f"127.0.0.1:{port}", target, tls)
    connection.send(HELLO, msgspec.json.encode(Hello(VERSION, "c", 0, "replica", name)))
    async with asyncio.timeout(PATIENCE_S):
        await answered.wait()
    if connection.peer is None:
        raise ConnectionError(connection.trouble)
    return connection


GARBAGE = {
    "a pickle": struct.pack("<i", 30) + pickle.dumps("readonly"),
    "a read-only hello of PySyncObj": struct.pack("<i", 8) + b"readonly",
    "a frame of 2 GiB": struct.pack("<IB", 2**31, HELLO) + b"x" * 1000,
    "a frame of no bytes": struct.pack("<I", 0) * 10,
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "garbage": bytes(range(256)) * 16,
}


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("said", GARBAGE)
async def test_garbage_is_cut_at_once_and_unparsed(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, said: str, encrypted: bool
) -> None:
    monkeypatch.setattr(sockets, "HELLO_TIMEOUT_S", 600.0)
    async with host(authority.tls("n1") if encrypted else None) as (served, port):
        assert b"n1" not in await visit(port, GARBAGE[said])
        assert served.parsed == []


async def test_plaintext_at_a_port_with_tls_gets_nowhere(authority: Authority) -> None:
    async with host(authority.tls("n1")) as (served, port):
        assert b"n1" not in await visit(port, hello("n2") + frame(PING) * 10)
        with pytest.raises(ConnectionError):
            await come_in(port, "n2", None)
        assert served.parsed == []


async def test_tls_at_a_port_without_it_gets_nowhere(authority: Authority) -> None:
    async with host() as (served, port):
        with pytest.raises(ConnectionError):
            await come_in(port, "n2", authority.tls("n2"))
        assert served.parsed == []


def trusting(authority: Authority) -> ssl.SSLContext:
    """One that believes the authority and shows nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority.files("n9").ca)
    return context


@pytest.mark.parametrize("shown", ["nothing", "another authority's", "an expired one", "TLS 1.2"])
async def test_without_a_good_certificate_nothing_is_parsed(
    authority: Authority, other: Authority, log: list[dict[str, object]], shown: str
) -> None:
    context = trusting(authority)
    if shown == "another authority's":
        files = other.files("n2")
        context.load_cert_chain(files.cert, files.key)
    elif shown == "an expired one":
        files = authority.files("n2", days_ago=61)
        context.load_cert_chain(files.cert, files.key)
    elif shown == "TLS 1.2":
        files = authority.files("n2")
        context.load_cert_chain(files.cert, files.key)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with host(authority.tls("n1")) as (served, port):
        assert await visit(port, hello("n2") + frame(PING) * 10, context) == b""
        await until(lambda: not served.port_._strangers)
        assert served.parsed == []
        assert served.met == {}
        reasons = {
            "nothing": "peer did not return a certificate",
            "another authority's": "unable to get local issuer certificate",
            "an expired one": "certificate has expired",
            "TLS 1.2": "unsupported protocol",
        }
        assert reasons[shown] in str(log[-1]["cause"])


async def test_a_certificate_does_not_speak_for_another_node(authority: Authority) -> None:
    async with host(authority.tls("n1")) as (served, port):
        with pytest.raises(ConnectionError):
            await come_in(port, "n3", authority.tls("n2"))
        assert served.met == {}
        connection = await come_in(port, "n2", authority.tls("n2"))
        assert served.met["n2"].certified == "n2"
        connection.close()


async def test_whoever_dials_talks_only_to_the_node_that_it_means(authority: Authority, other: Authority) -> None:
    async with host(authority.tls("n3")) as (served, port):
        with pytest.raises(ConnectionError, match="its certificate is of n3"):
            await come_in(port, "n2", authority.tls("n2"))
        assert served.parsed == [], "the other end was told nothing"
    async with host(other.tls("n1")) as (served, port):
        with pytest.raises(ConnectionError, match="its certificate is not accepted"):
            await come_in(port, "n2", authority.tls("n2"))
        assert served.parsed == []


async def test_what_was_recorded_is_of_no_use_when_it_is_played_again(authority: Authority) -> None:
    async with host(authority.tls("n1")) as (served, port):
        recorded = bytearray()

        async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", port)

            async def back() -> None:
                while data := await upstream_reader.read(65536):
                    writer.write(data)

            backwards = asyncio.create_task(back())
            while data := await reader.read(65536):
                recorded.extend(data)
                upstream.write(data)
            backwards.cancel()
            upstream.close()
            writer.close()

        recorder = await asyncio.start_server(record, "127.0.0.1", 0)
        async with recorder:
            member = await come_in(recorder.sockets[0].getsockname()[1], "n2", authority.tls("n2"))
            member.send(PING)
            await asyncio.wait_for(served.pinged.wait(), PATIENCE_S)
            parsed = list(served.parsed)
            assert [kind for kind, _ in parsed] == [HELLO, PING]
            await visit(port, bytes(recorded))
            assert served.parsed == parsed, "nothing of it was understood"
            assert served.met["n2"].transport is not None, "the member's own connection is still there"
            member.close()


async def test_one_who_was_let_in_and_then_sends_garbage_is_cut(authority: Authority) -> None:
    async with host(authority.tls("n1")) as (served, port):
        member = await come_in(port, "n2", authority.tls("n2"))
        assert member.transport is not None
        member.transport.write(GARBAGE["a frame of 2 GiB"])
        await until(lambda: served.lost)
        assert [kind for kind, _ in served.parsed] == [HELLO]


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00", hello("n2")[:9]])
async def test_slow_ones_have_one_deadline_for_handshake_and_hello(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, encrypted: bool, said: bytes
) -> None:
    monkeypatch.setattr(sockets, "HELLO_TIMEOUT_S", 0.2)
    async with host(authority.tls("n1") if encrypted else None) as (served, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        closed = asyncio.create_task(reader.read())
        trickle = iter(bytes(1000))
        async with asyncio.timeout(PATIENCE_S):
            while not closed.done():  # a byte at a time buys no time
                if said:
                    writer.write(bytes([next(trickle)]))
                await asyncio.wait([closed], timeout=0.02)
        writer.transport.abort()
        await asyncio.gather(closed, return_exceptions=True)
        await until(lambda: not served.port_._strangers)
        assert served.parsed == []


async def test_a_handshake_that_was_done_in_time_leaves_no_more_time_for_the_hello(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "HELLO_TIMEOUT_S", 0.3)
    context = trusting(authority)
    files = authority.files("n2")
    context.load_cert_chain(files.cert, files.key)
    async with host(authority.tls("n1")) as (served, port):
        assert await visit(port, b"", context) == b""
        assert served.met == {}


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_crowd_of_silent_ones_does_not_keep_a_member_out(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, encrypted: bool
) -> None:
    monkeypatch.setattr(sockets, "HELLO_TIMEOUT_S", 600.0)  # only the bound on strangers can end them
    async with host(authority.tls("n1") if encrypted else None) as (served, port):
        crowd = []
        try:
            for number in range(STRANGERS_MAX + 100):
                crowd.append(socket.create_connection(("127.0.0.1", port)))
                await until(lambda number=number: served.made > number)
                assert len(served.port_._strangers) <= STRANGERS_MAX
            member = await come_in(port, "n2", authority.tls("n2") if encrypted else None)
            assert list(served.met) == ["n2"]
            member.close()
            crowd[0].settimeout(PATIENCE_S)
            assert await asyncio.to_thread(crowd[0].recv, 1) == b"", "the one that waited longest had to go"
        finally:
            for each in crowd:
                each.close()


async def test_strangers_do_not_fill_the_log(log: list[dict[str, object]]) -> None:
    async with host() as (served, port):
        for _ in range(20):
            await visit(port, GARBAGE["HTTP"])
        await until(lambda: not served.port_._strangers)
        assert [(line["event"], line["count"]) for line in log] == [("connections refused", 1)]
        served.port_._refusals._said_s -= Rarely.SAID_S + 1
        await visit(port, GARBAGE["HTTP"])
        await until(lambda: not served.port_._strangers)
        assert [line["count"] for line in log] == [1, 20]


async def test_a_system_without_room_for_connections_is_waited_for(
    log: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "PAUSE_S", 0.01)
    refusals = iter([OSError(24, "Too many open files"), ConnectionAbortedError(103, "gone")])
    accept = socket.socket.accept

    def sometimes(listening: socket.socket) -> object:
        trouble = next(refusals, None)
        if trouble is not None:
            raise trouble
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", sometimes)
    async with host() as (served, port):
        member = await come_in(port, "n2", None)
        assert list(served.met) == ["n2"]
        assert [line["cause"] for line in log] == ["Too many open files"]
        member.close()


async def test_new_certificates_are_for_new_connections_and_the_old_ones_go_on(authority: Authority) -> None:
    files = authority.files("n1")
    async with host(Tls(files, "n1")) as (served, port):
        first = await come_in(port, "n2", authority.tls("n2"))
        serial = _serial(first)
        authority.files("n1")
        second = await come_in(port, "n3", authority.tls("n3"))
        assert _serial(second) != serial
        first.send(PING)
        await asyncio.wait_for(served.pinged.wait(), PATIENCE_S)
        first.close()
        second.close()


def _serial(connection: Connection) -> str:
    assert connection.transport is not None
    return str(connection.transport.get_extra_info("peercert")["serialNumber"])


async def test_large_frames_arrive_whole_over_tls(authority: Authority) -> None:
    async with host(authority.tls("n1")) as (served, port):
        member = await come_in(port, "n2", authority.tls("n2"))
        payload = bytes(range(256)) * 40_000
        for _ in range(5):
            member.send(PING, payload)
        member.send(9)
        await until(lambda: served.parsed[-1][0] == 9)
        assert [received for kind, received in served.parsed if kind == PING] == [payload] * 5
        member.close()


async def test_a_dead_node_is_noticed_at_once_over_tls(authority: Authority) -> None:
    """A process that is killed says no goodbye in TLS: its socket is closed by the kernel."""
    async with host(authority.tls("n1")) as (served, port):
        files = authority.files("n2")
        code = (
            "import socket, ssl, sys, os, signal\n"
            "context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n"
            "context.check_hostname = False\n"
            f"context.load_verify_locations({files.ca!r})\n"
            f"context.load_cert_chain({files.cert!r}, {files.key!r})\n"
            f"s = context.wrap_socket(socket.create_connection(('127.0.0.1', {port})))\n"
            f"s.sendall({hello('n2')!r})\n"
            "s.recv(1)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
        await process.wait()
        await until(lambda: served.lost)
        assert list(served.met) == ["n2"]
