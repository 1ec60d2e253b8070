"""The command line against a real node: what it prints, and how it ends."""

import asyncio
import io
import json
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import aiohttp
import pytest

from api.cli import run
from tests.processes.nodes import Cluster

pytestmark = pytest.mark.processes
_numbers = count()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    cluster = Cluster(tmp_path_factory.mktemp("node"), 1)

    async def start() -> None:
        async with aiohttp.ClientSession() as cluster.http:
            cluster.nodes["n1"].start()
            await cluster.ready("n1")

    try:
        asyncio.run(start())
        yield cluster.nodes["n1"].url
    finally:
        cluster.nodes["n1"].kill()


Trimaran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def trimaran(node: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Trimaran:
    """Run a command line; returns the exit code, the output, and what was said beside it."""
    monkeypatch.setenv("TRIMARAN_URL", node)

    def command(*tokens: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = run(tokens)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def queue(trimaran: Trimaran) -> str:
    name = f"orders-{next(_numbers)}"
    assert trimaran("queues", "create", name)[0] == 0
    return name


def receive(trimaran: Trimaran, queue: str, *flags: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in trimaran("receive", queue, "--json", *flags)[1].splitlines()]


def test_a_message_is_sent_received_and_acked(trimaran: Trimaran, queue: str) -> None:
    assert trimaran("send", queue, "one slööp", "-a", "colour=red") == (0, f"sent message 1 to {queue}\n", "")
    code, said, _ = trimaran("receive", queue)
    assert code == 0
    assert "attempt 1" in said
    assert "colour: red" in said
    assert "    one slööp\n" in said
    receipt = said.split("receipt ")[1].strip()
    assert trimaran("ack", queue, receipt) == (0, "acked 1 of 1\n", "")
    code, _, said = trimaran("ack", queue, receipt, "nonsense")
    assert code == 1
    assert "stale" in said
    assert "invalid" in said


def test_everything_is_read_again_when_asked(trimaran: Trimaran, queue: str) -> None:
    code, said, errors = trimaran("scrub")
    assert (code, errors) == (0, "")
    assert said.split()[:5] == ["node", "passes", "bytes", "damages", "repairs"]
    code, said, _ = trimaran("scrub", "--json")
    (node,) = json.loads(said)["nodes"]
    assert code == 0
    assert node["scrub"]["passes"] >= 2
    assert node["scrub"]["bytes"] > 0


def test_only_what_a_filter_matches_is_received(trimaran: Trimaran, queue: str) -> None:
    for colour in ("blue", "red", "blue", "red"):
        assert trimaran("send", queue, f"a {colour} boat", "-a", f"colour={colour}")[0] == 0
    wanted = '{"colour": ["red"]}'
    received = receive(trimaran, queue, "--max", "9", "--filter", wanted, "--ack")
    assert [message["body"] for message in received] == ["a red boat", "a red boat"]
    assert trimaran("receive", queue, "--filter", wanted, "--wait", "0.1") == (3, "", "")
    code, _, said = trimaran("receive", queue, "--filter", "red")
    assert code == 2
    assert "--filter is not JSON" in said
    code, _, said = trimaran("receive", queue, "--filter", '{"colour": "red"}')
    assert code == 1
    assert "$.filter/colour" in said
    assert wanted.replace(" ", "") in trimaran("queues", "show", queue, "--json")[1].replace(" ", "")


def test_nothing_to_receive_has_an_exit_code_of_its_own(trimaran: Trimaran, queue: str) -> None:
    assert trimaran("receive", queue) == (3, "", "")


def test_lines_become_messages_in_order_and_ack_takes_them_away(trimaran: Trimaran, queue: str, tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(2500)]
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(lines) + "\n")
    assert trimaran("send", queue, "--file", str(file))[1] == f"sent 2,500 messages to {queue}\n"
    received = receive(trimaran, queue, "--max", "3000", "--ack")
    assert [message["body"] for message in received] == lines
    assert json.loads(trimaran("queues", "show", queue, "--json")[1])["leased"] == 0


@pytest.mark.parametrize(
    ("stdin", "flags", "bodies"),
    [
        (b"a\nb\r\n\nc", ("--file", "-"), ["a", "b", "", "c"]),
        (b"a\nb\n", ("-",), ["a\nb\n"]),
        (b"", ("-",), [""]),
        (b"", ("--", "-x"), ["-x"]),
    ],
)
def test_bodies_from_standard_input(
    trimaran: Trimaran, queue: str, stdin: bytes, flags: tuple[str, ...], bodies: list[str]
) -> None:
    assert trimaran("send", queue, *flags, stdin=stdin)[0] == 0
    assert [message["body"] for message in receive(trimaran, queue, "--max", "9")] == bodies


def test_bytes_that_are_no_text_arrive_as_they_are(trimaran: Trimaran, queue: str) -> None:
    trimaran("send", queue, "-", stdin=b"\xff\x00\xfe")
    assert receive(trimaran, queue)[0]["body_base64"] == "/wD+"


def test_a_body_cannot_steer_the_terminal(trimaran: Trimaran, queue: str) -> None:
    trimaran("send", queue, "red \x1b[31m alert")
    assert "red \\x1b[31m alert" in trimaran("receive", queue)[1]


def test_receipts_are_read_from_standard_input(trimaran: Trimaran, queue: str) -> None:
    trimaran("send", queue, "--file", "-", stdin=b"a\nb\n")
    receipts = "".join(f"{message['receipt']}\n" for message in receive(trimaran, queue, "--max", "2"))
    code, said, _ = trimaran("ack", queue, "-", "--json", stdin=receipts.encode())
    assert code == 0
    assert [json.loads(line)["status"] for line in said.splitlines()] == ["acked", "acked"]


def test_queues_are_listed_purged_and_deleted(trimaran: Trimaran, queue: str) -> None:
    trimaran("send", queue, "x")
    assert queue in trimaran("queues")[1]
    listed = json.loads(trimaran("queues", "list", "--json")[1])["queues"]
    assert [each["ready"] for each in listed if each["queue"] == queue] == [1]
    assert trimaran("queues", "purge", queue)[0] == 2
    assert trimaran("queues", "purge", queue, "--yes")[0] == 0
    assert json.loads(trimaran("queues", "show", queue, "--json")[1])["ready"] == 0
    assert trimaran("queues", "delete", queue, "--yes")[0] == 0
    assert trimaran("queues", "show", queue)[0] == 1


def test_the_cluster_is_shown(trimaran: Trimaran) -> None:
    code, said, _ = trimaran("cluster")
    assert code == 0
    assert "n1" in said
    assert json.loads(trimaran("cluster", "--json")[1])["shards"][0]["leader"] == "n1"


def test_a_refusal_tells_what_to_do(trimaran: Trimaran) -> None:
    code, _, said = trimaran("send", "no-such-queue", "x")
    assert code == 1
    assert said.startswith("trimaran: There is no such queue")
    assert "Create it" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("send", "orders"), "give either a body"),
        (("send", "orders", "x", "--file", "y"), "give either a body"),
        (("send", "", "x"), "name is empty"),
        (("send", "orders", "x", "-a", "colour"), "'colour' is not NAME=VALUE"),
        (("send", "orders", "--file", "/nowhere/at/all"), "cannot be read: No such file"),
        (("send", "orders", "x", "--url", "localhost:7700"), "is no URL"),
        (("receive", "orders", "--max", "0"), "--max"),
        (("queues", "delete", "orders"), "add --yes"),
        (("serve", "--node", "n4", "--peers", "n1=127.0.0.1:7800"), "--node n4 is not among --peers n1"),
        (("local", "--nodes", "2"), "a cluster has 1, 3, 5 or 7 nodes"),
        (("nonsense",), "nonsense"),
    ],
)
def test_wrong_usage_is_told_and_ends_with_two(trimaran: Trimaran, tokens: tuple[str, ...], said: str) -> None:
    code, out, err = trimaran(*tokens)
    assert code == 2
    assert said in out + err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["serve", "local", "send", "receive", "ack", "queues", "cluster", "bench"])
def test_every_command_explains_itself_with_an_example(trimaran: Trimaran, command: str) -> None:
    code, said, _ = trimaran(command, "--help")
    assert code == 0
    assert f"trimaran {command}" in said.split("Usage:")[1].split("\n", 1)[1]


def test_keys_are_made_used_and_revoked(trimaran: Trimaran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert "everything" in trimaran("keys")[1]
    code, out, _ = trimaran("keys", "create", "--role", "admin", "--save", "--note", "mine")
    saved = (tmp_path / "trimaran" / "key").read_text().strip()
    assert (code, saved in out) == (0, True)
    assert (tmp_path / "trimaran" / "key").stat().st_mode & 0o777 == 0o600
    admin, _, secret = saved.partition(":")
    try:
        code, out, _ = trimaran("keys", "create", "--role", "producer", "--queues", "a-*", "--queues", "b", "--json")
        made = json.loads(out)
        assert (code, made["queues"]) == (0, ["a-*", "b"])
        code, out, _ = trimaran("keys", "list")
        assert (code, admin in out, made["id"] in out, secret in out) == (0, True, True, False)
        assert "a-*, b" in trimaran("keys", "show", made["id"])[1]
        with monkeypatch.context() as other:
            other.setenv("TRIMARAN_KEY", f"{made['id']}:{made['secret']}")
            code, _, err = trimaran("queues", "create", "a-1")
            assert (code, "has not the right to manage on a-1" in err) == (1, True)
            other.setenv("TRIMARAN_KEY", "nonsense")
            assert trimaran("queues")[0] == 2
            other.setenv("TRIMARAN_KEY", f"{made['id']}:wrong")
            code, _, err = trimaran("queues")
            assert (code, "It is not known who asks" in err) == (1, True)
        assert trimaran("keys", "revoke", made["id"])[0] == 0
        code, _, err = trimaran("keys", "show", made["id"])
        assert (code, "There is no such access key" in err) == (1, True)
        assert trimaran("bench", "--messages", "20", "--connections", "2")[0] == 0
    finally:
        assert trimaran("keys", "revoke", admin)[0] == 0


def test_a_seal_key_is_not_replaced(trimaran: Trimaran, tmp_path: Path) -> None:
    path = str(tmp_path / "seal.key")
    assert trimaran("keys", "seal-key", path)[0] == 0
    code, _, err = trimaran("keys", "seal-key", path)
    assert (code, "exists" in err) == (1, True)
