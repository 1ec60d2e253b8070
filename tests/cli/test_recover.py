"""The command for the worst day, on the directories of a node that does not run."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from api.cli import run
from cluster.engine import REMOVED_META
from cluster.identity import claim
from cluster.journal import Journal
from cluster.membership import Membership
from cluster.recovery import survivor
from cluster.repair import Note, read_members, write_members, write_note
from storage.disk import lock_directory
from storage.lmdb_store import LmdbStore
from storage.operations import encode_entry

PEERS = {"n1": "127.0.0.1:1", "n2": "127.0.0.1:2", "n3": "127.0.0.1:3"}
AT_MS = 1_700_000_000_000


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What n1 has: two shards, each with two entries, none of them known to be acknowledged."""
    identity = claim(tmp_path, "n1", PEERS)
    for shard in range(2):
        name = f"shard {shard} of node n1 of cluster {identity.cluster}"
        store = LmdbStore(tmp_path / f"shard-{shard}", bytes_max=2**26, identity=name)
        store.begin()
        journal = Journal(store, 1000)
        for index in (2, 3):
            journal.append(index, 7, encode_entry(AT_MS + index, []))
        store.commit()
        store.close()
    return tmp_path


def recover(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *flags: str, typed: str = ""
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "stdin", Terminal(typed) if typed else io.StringIO())
    code = run(["recover", "--data", str(data), *flags])
    return code, *capsys.readouterr()


def memberships(data: Path) -> list[Membership]:
    with survivor(data) as node:
        return [found.membership for found in node.look()]


def test_it_shows_what_there_is_and_changes_nothing(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = memberships(data)
    code, shown, _ = recover(data, capsys, monkeypatch, "--json")
    facts = json.loads(shown)["shards"]
    assert code == 0
    assert [(each["shard"], each["last_term"], each["last_index"]) for each in facts] == [(0, 7, 3), (1, 7, 3)]
    assert facts[0]["last_entry_at"] == "2023-11-14T22:13:20.003Z"
    assert facts[0]["voters"] == ["n1", "n2", "n3"]
    code, shown, _ = recover(data, capsys, monkeypatch)
    assert "n1, n2, n3" in shown
    assert memberships(data) == before


@pytest.mark.parametrize("typed", ["", "yes\n", "n1\n"], ids=["nobody is there", "yes", "the node's name"])
def test_without_the_clusters_name_nothing_is_done(
    typed: str, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = memberships(data)
    assert recover(data, capsys, monkeypatch, "--force", "--address", "h:1", typed=typed)[0] == 2
    assert recover(data, capsys, monkeypatch, "--force", "--address", "h:1", "--confirm", "n1")[0] == 2
    assert memberships(data) == before


def test_a_pipe_is_nobody_who_means_it(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (before, _) = memberships(data)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{before.cluster}\n"))
    assert run(["recover", "--data", str(data), "--force", "--address", "h:1"]) == 2
    assert f"add --confirm {before.cluster}" in capsys.readouterr().err
    assert memberships(data)[0] == before


def test_what_may_be_lost_is_said_before_it_is_asked(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_note(data / "shard-1", Note("a checksum is wrong"))
    with survivor(data) as node:
        node.shards[0].store.begin()
        node.shards[0].store.set_meta(REMOVED_META, b"1")
        node.shards[0].store.commit()
    _, _, said = recover(data, capsys, monkeypatch, "--force", "--address", "h:1", typed="no\n")
    before, asked, _ = said.partition("Type the cluster's name")
    assert asked
    for words in (
        "log ends with entry 3 of term 7 at 2023-11-14T22:13:20.003Z",
        "acknowledged after it is LOST",
        "2 entries here are not known to be acknowledged",
        "NOT COMPLETE",
        "shard 1: this store is DAMAGED: a checksum is wrong",
        "shard 0: the cluster had REMOVED this node",
        "n2, n3 can never come back",
        "a majority of them, started again, would serve clients as the old cluster",
    ):
        assert words in before


def test_every_shard_is_another_cluster_then_and_the_same_one(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = memberships(data)[0].cluster
    code, _, said = recover(data, capsys, monkeypatch, "--force", "--address", "h:1", typed=f"{old}\n")
    assert code == 0
    first, second = memberships(data)
    assert first == second == Membership(first.cluster, {"n1": "h:1"}, {}, ("n2", "n3"))
    assert first.cluster != old
    assert f"n1 is cluster {first.cluster} now" in said
    assert read_members(data / "shard-0") == read_members(data / "shard-1") == first, "whom it asks if it is damaged"

    # Interrupted between two shards, or not sure: it is done again, under the name it has now.
    assert recover(data, capsys, monkeypatch, "--force", "--confirm", old)[0] == 2
    write_members(data / "shard-0", Membership(old, {"n1": "older:1"}))
    assert recover(data, capsys, monkeypatch, "--force", "--confirm", first.cluster)[0] == 0
    again, also = memberships(data)
    assert again == also
    assert again.cluster not in (old, first.cluster)
    assert again.members == {"n1": "h:1"}


def test_the_address_is_what_the_node_remembers_beside_its_store(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = memberships(data)[0].cluster
    write_members(data / "shard-0", Membership(old, PEERS))
    assert recover(data, capsys, monkeypatch, "--force", "--confirm", old)[0] == 0
    assert memberships(data)[1].members == {"n1": PEERS["n1"]}


def test_what_cannot_be_recovered_is_refused_with_a_reason(
    data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = lock_directory(data / "shard-1")
    code, _, said = recover(data, capsys, monkeypatch, "--force")
    assert (code, "is in use" in said) == (1, True)
    os.close(lock)
    code, _, said = recover(data, capsys, monkeypatch, "--force")
    assert (code, "give its --raft with --address" in said) == (2, True), "nobody has remembered it"
    code, _, said = recover(data, capsys, monkeypatch, "--force", "--address", "nowhere")
    assert (code, "--address: 'nowhere' is no address" in said) == (2, True)
    empty = tmp_path_factory.mktemp("empty")
    assert recover(empty, capsys, monkeypatch)[0] == 1
    claim(empty, "n1", PEERS)
    code, _, said = recover(empty, capsys, monkeypatch)
    assert (code, "holds no log" in said) == (1, True)
