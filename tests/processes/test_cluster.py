"""Three real nodes, killed for real. After each story: nothing kept is lost, nothing acked comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.load import Habits, Load
from tests.processes.nodes import Cluster, eventually

pytestmark = pytest.mark.processes


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path) as cluster:
        await cluster.ok("n1", "PUT", "/v1/queues/q", {})
        yield cluster


async def progress(load: Load, messages: int) -> None:
    """Wait until so many more messages were received."""
    before = len(load.history.deliveries)

    async def received() -> bool:
        return len(load.history.deliveries) >= before + messages

    await eventually(received, f"{messages} more messages are received")


async def test_any_node_takes_and_gives(cluster: Cluster) -> None:
    sent = await cluster.ok("n1", "POST", "/v1/queues/q/messages", {"body": "wörld", "attributes": {"a": 1}})
    got = (await cluster.ok("n2", "POST", "/v1/queues/q/receive", {}))["messages"][0]
    assert (got["message_id"], got["body"], got["attributes"]) == (sent["messages"][0]["message_id"], "wörld", {"a": 1})
    results = (await cluster.ok("n3", "POST", "/v1/queues/q/ack", {"receipts": [got["receipt"]]}))["results"]
    assert results == [{"receipt": got["receipt"], "status": "acked"}]
    assert await cluster.counts("n1", "q") == {"ready": 0, "leased": 0, "delayed": 0}


async def test_the_leader_is_killed_under_load_and_no_request_of_the_others_fails(cluster: Cluster) -> None:
    leader = await cluster.leader()
    load = Load(cluster, [name for name in cluster.nodes if name != leader])
    load.start()
    await progress(load, 500)
    cluster.nodes[leader].kill()
    await progress(load, 500)
    cluster.nodes[leader].start()
    await cluster.ready(leader)
    await progress(load, 200)
    await load.finish()
    assert not load.history.failures


async def test_all_nodes_are_killed_at_once_and_come_back(cluster: Cluster) -> None:
    load = Load(cluster, list(cluster.nodes), Habits(lease_ms=3000))
    load.start()
    await progress(load, 500)
    for node in cluster.nodes.values():
        node.signal(signal.SIGKILL)
    for node in cluster.nodes.values():
        node.kill()
        node.start()
    await cluster.ready(*cluster.nodes)
    await progress(load, 300)
    await load.finish()


async def test_a_leader_stopped_past_its_leases_does_no_harm(cluster: Cluster) -> None:
    leader = await cluster.leader()
    others = [name for name in cluster.nodes if name != leader]
    load = Load(cluster, others, Habits(lease_ms=2000))
    load.start()
    await progress(load, 300)
    cluster.nodes[leader].signal(signal.SIGSTOP)
    try:
        assert await cluster.leader(*others) != leader or await eventually(
            lambda: _leads_not(cluster, others, leader), "another leader"
        )
        await progress(load, 300)
        resumed_after_s = time.monotonic() + 2.5

        async def past_the_leases() -> bool:
            return time.monotonic() > resumed_after_s

        await eventually(past_the_leases, "the stopped leader's leases are over")
    finally:
        cluster.nodes[leader].signal(signal.SIGCONT)
    await cluster.ready(leader)
    await progress(load, 300)
    await load.finish()
    assert not load.history.failures


async def _leads_not(cluster: Cluster, seen_by: list[str], name: str) -> bool:
    return await cluster.leader(*seen_by) != name


async def test_a_follower_is_wiped_and_brought_up_by_its_peers(cluster: Cluster) -> None:
    leader = await cluster.leader()
    wiped, other = (name for name in cluster.nodes if name != leader)
    for number in range(20):
        await cluster.ok(leader, "POST", "/v1/queues/q/messages", {"messages": [{"body": f"{number}"}] * 50})
    cluster.nodes[wiped].kill()
    cluster.nodes[wiped].wipe()
    cluster.nodes[wiped].start()
    await cluster.ready(wiped)

    async def caught_up() -> bool:
        indexes = [
            (await cluster.ok(name, "GET", "/v1/cluster"))["shards"][0]["applied_index"] for name in (wiped, leader)
        ]
        return indexes[0] >= indexes[1]

    await eventually(caught_up, "the wiped node has everything")
    cluster.nodes[other].kill()
    assert await cluster.counts(wiped, "q") == {"ready": 1000, "leased": 0, "delayed": 0}
    cluster.nodes[leader].kill()
    cluster.nodes[other].start()
    await cluster.ready(other, wiped)
    assert await cluster.counts(other, "q") == {"ready": 1000, "leased": 0, "delayed": 0}


async def test_a_retry_on_another_node_after_a_failover_takes_effect_once(cluster: Cluster) -> None:
    leader = await cluster.leader()
    first, second = (name for name in cluster.nodes if name != leader)
    document = {"messages": [{"body": "a"}, {"body": "b"}]}
    sent = await cluster.ok(first, "POST", "/v1/queues/q/messages", document, Idempotency_Key="order-1")
    received = await cluster.ok(first, "POST", "/v1/queues/q/receive", {"max": 1}, Idempotency_Key="fetch-1")
    cluster.nodes[leader].kill()
    assert await cluster.ok(second, "POST", "/v1/queues/q/messages", document, Idempotency_Key="order-1") == sent
    again = await cluster.ok(second, "POST", "/v1/queues/q/receive", {"max": 1}, Idempotency_Key="fetch-1")
    assert again == received
    assert await cluster.counts(second, "q") == {"ready": 1, "leased": 1, "delayed": 0}
    status, problem = await cluster.call(
        second, "POST", "/v1/queues/q/messages", {"body": "c"}, Idempotency_Key="order-1"
    )
    assert (status, problem["type"]) == (422, "urn:trimaran:idempotency-mismatch")


async def test_who_asks_with_a_filter_gets_all_that_matches_once_and_in_order_through_a_leaders_death(
    cluster: Cluster,
) -> None:
    wanted = {"filter": {"colour": ["red"]}, "max": 7}
    leader = await cluster.leader()
    left = [name for name in cluster.nodes if name != leader]
    waiting = asyncio.create_task(cluster.ok(left[0], "POST", "/v1/queues/q/receive", {**wanted, "wait_ms": 20_000}))
    batch = [{"body": f"{n}", "attributes": {"colour": "red" if n % 3 == 0 else "blue"}} for n in range(300)]
    for _ in range(4):
        await cluster.ok(leader, "POST", "/v1/queues/q/messages", {"messages": batch})
    got = (await waiting)["messages"]
    killed = False
    while len(got) < 400:
        if len(got) > 100 and not killed:
            killed = True
            cluster.nodes[leader].kill()
        asked = {**wanted, "wait_ms": 20_000}
        more = (await cluster.ok(left[len(got) % 2], "POST", "/v1/queues/q/receive", asked))["messages"]
        assert more, "none is missed"
        await cluster.ok(left[0], "POST", "/v1/queues/q/ack", {"receipts": [message["receipt"] for message in more]})
        got += more
    ids = [message["message_id"] for message in got]
    assert ids == [first + n for first in (1, 301, 601, 901) for n in range(0, 300, 3)]
    assert (await cluster.ok(left[0], "POST", "/v1/queues/q/receive", wanted)) == {"messages": []}


async def test_without_a_majority_it_says_so_within_a_second_and_keeps_nothing(cluster: Cluster) -> None:
    async def n1_has_it() -> bool:
        return (await cluster.call("n1", "GET", "/v1/queues/q?consistency=local"))[0] == 200

    await eventually(n1_has_it, "n1 has applied that there is a queue")
    for name in ("n2", "n3"):
        cluster.nodes[name].kill()
    began_s = time.monotonic()
    status, problem = await cluster.call("n1", "POST", "/v1/queues/q/messages", {"body": "a"})
    assert status == 503
    assert problem["outcome"] in ("unknown", "not_done")
    assert time.monotonic() - began_s < 1.5  # a second, and a shared machine's half
    assert (await cluster.call("n1", "GET", "/v1/queues/q"))[0] == 503
    assert await n1_has_it(), "what it has it shows, if that will do"
    status, unready = await cluster.call("n1", "GET", "/readyz")
    assert (status, unready["outcome"]) == (503, "not_done")
    cluster.nodes["n2"].start()
    await cluster.ready("n1")
    assert (await cluster.counts("n1", "q"))["ready"] in ((0,) if problem["outcome"] == "not_done" else (0, 1))


async def test_children_die_with_their_supervisor(cluster: Cluster) -> None:
    node = cluster.nodes["n1"]
    children = node.children()
    assert len(children) == 2
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()

    async def gone() -> bool:
        return not any(os.path.exists(f"/proc/{pid}/exe") for pid in children)

    await eventually(gone, "the children are gone")


async def test_a_node_whose_shard_dies_ends(cluster: Cluster) -> None:
    node = cluster.nodes["n1"]
    os.kill(node.children()[0], signal.SIGKILL)
    assert node.process is not None
    assert await asyncio.to_thread(node.process.wait, 10) != 0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"--node": "n2", "--raft": "RAFT-OF-n2"}, "holds the data of node n1"),
        ({"--peers": "n1=RAFT-OF-n1,n8=127.0.0.1:2,n9=127.0.0.1:3"}, "belongs to a cluster of n1, n2, n3"),
        ({"--http": "HTTP-OF-n2"}, "cannot listen"),
    ],
)
async def test_a_node_refuses_to_start_with_what_is_not_its_own(
    cluster: Cluster, changed: dict[str, str], words: str
) -> None:
    cluster.nodes["n1"].kill()
    argv = list(cluster.nodes["n1"].argv)
    for flag, value in changed.items():
        for name, node in cluster.nodes.items():
            for known in ("--raft", "--http"):
                value = value.replace(f"{known[2:].upper()}-OF-{name}", node.argv[node.argv.index(known) + 1])
        argv[argv.index(flag) + 1] = value
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(20):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode != 0
    assert words in errors.decode()


async def test_each_node_tells_what_it_measures(cluster: Cluster) -> None:
    for _ in range(5):
        await cluster.ok("n1", "POST", "/v1/queues/q/messages", {"body": "x"})
    leader = await cluster.leader()

    async def told(name: str) -> dict[str, float]:
        async with cluster.http.get(cluster.nodes[name].url + "/metrics") as answer:
            assert answer.status == 200
            lines = (await answer.text()).splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    async def is_level() -> bool:
        found = await told(leader)
        return all(
            found.get(f'trimaran_peer_behind_entries{{peer="{name}"}}') == 0 for name in cluster.nodes if name != leader
        )

    async def is_probed() -> bool:
        lags = 'trimaran_event_loop_lag_seconds_count{process="'
        found = [await told(name) for name in cluster.nodes]
        return all(each[f'{lags}{process}"}}'] > 0 for each in found for process in ("shard-0", "gateway-0"))

    await eventually(is_level, "the leader says that the others have everything")
    await eventually(is_probed, "every process has measured its loop")
    for name in cluster.nodes:
        found = await told(name)
        assert found["trimaran_replica_up"] == found["trimaran_ready"] == found["trimaran_has_leader"] == 1
        assert found["trimaran_leader"] == (name == leader)
        assert found[f'trimaran_role{{role="{"leader" if name == leader else "follower"}"}}'] == 1
        assert found["trimaran_commit_seconds_count"] >= 5
        assert (found["trimaran_replication_seconds_count"] >= 5) == (name == leader)
        assert sum(found[f'trimaran_peer_connected{{peer="{other}"}}'] for other in cluster.nodes if other != name) == 2
        assert (found.get('trimaran_queue_messages{queue="q",state="ready"}') == 5) == (name == leader)
        assert found["trimaran_store_bytes"] > 0
        for process in ("shard-0", "gateway-0"):
            assert found[f'trimaran_process_resident_bytes{{process="{process}"}}'] > 2**20
    sent = 'trimaran_http_requests_total{gateway="gateway-0",route="POST /v1/queues/{queue}/messages",status="201"}'
    assert (await told("n1"))[sent] == 5
