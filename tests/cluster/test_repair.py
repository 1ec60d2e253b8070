"""Repair, told on replicas with real files: who is damaged begins again without its store, if it can be spared."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cluster import scrub
from cluster.keeper import Change, Keeper
from cluster.membership import Membership, configured
from cluster.messages import Ailing, Append, Message, Spared
from cluster.metrics import ProcessMetrics
from cluster.repair import ROUND_S, Note, Patient, Repair, read_note, write_members
from cluster.replica import Replica
from cluster.scrub import ScrubSettings, Tally
from cluster.wire import AskChange, AskLook
from storage.access_operations import CreateAccessKey
from storage.block import BadChecksumError, encode_block
from storage.lmdb_store import LmdbStore
from storage.operations import Receive, Received, Refused, Send, encode_item
from storage.options import Options, Run
from storage.queue_operations import GetQueue, PutQueue, QueueInfo
from storage.record_keys import ACCESS, SHARD_KEY
from storage.seals import seal
from storage.settings import QueueSettings
from storage.state import DamageError
from tests.cluster.trio import Trio
from tests.cluster.ward import Ward
from tests.storage.harness import quick_directory

NOTE = msgspec.json.encode(Note("it was damaged"))
KEY = CreateAccessKey("FIRSTADMIN000000", b"sealed", ["admin"], ["*"], "for a test")
MARK = b"a body that is found nowhere else"


@pytest.fixture
def ward(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    monkeypatch.setattr(scrub, "SPAN_RECORDS", 7)
    with quick_directory() as directory:
        ward = filled(Ward(Path(directory)))
        yield ward
        ward.close()


def filled(ward: Ward) -> Ward:
    ward.start()
    ward.run_until(lambda: any(replica.report().serving for replica in ward.replicas.values()))
    ward.do(PutQueue("q", QueueSettings()))
    for number in range(9):
        ward.do(PutQueue(f"q{number}", QueueSettings()))
        ward.do(Send("q", 1), encode_block([(MARK + b" %d" % number, b"")]))
    ward.run(0.2)
    return ward


def follower(ward: Ward) -> str:
    return next(name for name in ward.names if name != ward.leader)


def flip(path: Path, what: bytes = MARK + b" 3") -> None:
    """Flip a bit of `what` wherever it is in a file, at rest or under a running replica: old pages have it too."""
    data = path.read_bytes()
    assert what in data
    with path.open("r+b") as file:
        for found in re.finditer(re.escape(what), data):
            file.seek(found.start())
            file.write(bytes((data[found.start()] ^ 1,)))


def cut_short(path: Path) -> None:
    """Cut off more of a file than pages that are free: those would not be missed."""
    os.truncate(path, path.stat().st_size // 4)


def spoil(ward: Ward, name: str) -> None:
    """Give a record of one replica another value, with the checksum that belongs to it."""
    store = ward.keepers[name].store
    assert store is not None
    (key, value), *_ = store.scan(b"n")
    store.begin()
    store._written().put(key, seal(key, value[:-1] + bytes((value[-1] ^ 1,))), db=store._tables.state)
    store.commit()


def is_well(ward: Ward) -> bool:
    """Everybody is up, counts, knows of no damage, and has the same state."""
    replicas = list(ward.replicas.values())
    return (
        len(replicas) == len(ward.names)
        and all(isinstance(replica, Replica) for replica in replicas)
        and all(replica.engine.counts and not replica.report().scrub.ailing for replica in replicas)
        and len({replica.engine.applied_index for replica in replicas}) == 1
        and any(replica.report().serving for replica in replicas)
        and len(ward.digests()) == 1
    )


def damages(ward: Ward) -> dict[str, tuple[int, int]]:
    """How much damage each has found, and repaired."""
    return {name: (keeper.tally.damages, keeper.tally.repairs) for name, keeper in ward.keepers.items()}


def check_nothing_is_lost(ward: Ward) -> None:
    queue = ward.do(GetQueue("q"))
    assert isinstance(queue, QueueInfo)
    assert queue.ready == 9
    received = ward.do(Receive("q", 100, 60_000, 77))
    assert isinstance(received, Received)
    assert sum(delivery.count for delivery in received.deliveries) == 9


@pytest.mark.parametrize("damage", ["a flipped bit", "a silent difference"])
@pytest.mark.parametrize("leads", [True, False])
def test_a_damaged_replica_is_found_and_repaired(ward: Ward, leads: bool, damage: str) -> None:
    wrong = ward.leader if leads else follower(ward)
    if damage == "a flipped bit":
        flip(ward.path(wrong) / "data.mdb")
    else:
        spoil(ward, wrong)
    ward.scrub_now()
    assert ward.keepers[wrong].tally.damages == 1
    ward.run_until(lambda: is_well(ward))
    assert damages(ward) == {name: (1, 1) if name == wrong else (0, 0) for name in ward.names}
    assert (ward.path(wrong) / "damaged.mdb").exists()
    assert read_note(ward.path(wrong)) is None
    check_nothing_is_lost(ward)
    ward.scrub_now()
    assert damages(ward)[wrong] == (1, 1), "it is sound now"


def test_without_the_scrub_a_flipped_bit_stays_where_it_is(ward: Ward) -> None:
    flip(ward.path(follower(ward)) / "data.mdb")
    ward.run(20.0)
    assert set(damages(ward).values()) == {(0, 0)}


def test_a_leader_that_meets_damage_goes_on_as_a_follower_until_it_is_spared(ward: Ward) -> None:
    """A receive reads a body that is not what was sent."""
    leader = ward.leader
    ward.stop(leader)
    flip(ward.path(leader) / "data.mdb")
    ward.start(leader)
    ward.run_until(lambda: is_well(ward))
    ward.replicas[ward.leader].engine.transfer(leader)
    ward.run_until(lambda: {name for name in ward.names if ward.replicas[name].report().serving} == {leader})
    ward.ask(Receive("q", 100, 60_000, 77))
    ward.run_until(lambda: ward.keepers[leader].tally.damages == 1)
    assert isinstance(ward.replicas[leader], Replica), "it still follows, votes and acknowledges"
    ward.run_until(lambda: is_well(ward))
    assert damages(ward)[leader] == (1, 1)
    queue = ward.do(GetQueue("q"))
    assert isinstance(queue, QueueInfo)
    assert queue.ready + queue.leased == 9


@pytest.mark.parametrize("key", [ACCESS, SHARD_KEY], ids=["told in reports", "measured"])
def test_damage_in_what_is_told_between_ticks_is_repaired_too(ward: Ward, key: bytes) -> None:
    wrong = follower(ward)
    ward.do(KEY)
    ward.run_until(lambda: is_well(ward))
    store = ward.keepers[wrong].store
    assert store is not None
    store.begin()
    store._written().put(key, b"nonsense", db=store._tables.state)
    store.commit()
    ward.replicas[wrong].report()
    ward.keepers[wrong].measure(ProcessMetrics(), [])
    ward.run_until(lambda: ward.keepers[wrong].tally.repairs == 1)
    ward.run_until(lambda: is_well(ward))
    assert ward.replicas[wrong].report().access_index == ward.replicas[ward.leader].report().access_index > 0
    measured = ward.keepers[wrong].measure(ProcessMetrics(), [])
    assert (measured.role, measured.queues) == ("follower", 10)


DAMAGE_AT_REST = {
    "a meta value": lambda path: flip(path, b"shard-owner"),
    "its end cut off": cut_short,
    "no database at all": lambda path: path.write_bytes(b"nonsense" * 10_000),
}


@pytest.mark.parametrize("what", DAMAGE_AT_REST)
def test_a_store_that_cannot_be_opened_is_repaired(ward: Ward, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = follower(ward)
    ward.stop(wrong)
    path = ward.path(wrong) / "data.mdb"
    if what == "a meta value":
        store = ward.open_store(wrong)
        store.begin()
        store.set_meta("hard", store.meta("hard") + b"shard-owner")  # type: ignore[operator]
        store.commit()
        store.close()
    DAMAGE_AT_REST[what](path)
    ward.start(wrong)
    assert isinstance(ward.replicas[wrong], Patient)
    assert "cannot be used" in str(ward.replicas[wrong].report().trouble)
    ward.run_until(lambda: is_well(ward))
    assert damages(ward)[wrong] == (1, 1)
    check_nothing_is_lost(ward)


def test_a_store_that_cannot_be_opened_is_repaired_though_a_member_has_gone_meanwhile(tmp_path: Path) -> None:
    """It remembers four voters. The two that are left are no majority of those, but of the three there are now."""
    ward = Ward(tmp_path, "abcd")
    ward.start()
    ward.run(1.0)
    ward.do(PutQueue("q", QueueSettings()))
    gone, wrong = [name for name in ward.names if name != ward.leader][:2]
    ward.run_until(lambda: len(ward.digests()) == 1)
    ward.stop(wrong)
    (ward.path(wrong) / "data.mdb").write_bytes(b"nonsense" * 10_000)
    assert ward.replicas[ward.leader].change("gateway", AskChange(1, "remove", gone))
    ward.run_until(lambda: gone not in ward.replicas[ward.leader].engine.memberships.known[0].voters)
    ward.stop(gone)
    ward.start(wrong)
    assert gone in ward.replicas[wrong].engine.membership.voters
    ward.run_until(lambda: ward.keepers[wrong].tally.repairs == 1)
    assert gone not in ward.replicas[wrong].engine.membership.voters
    ward.close()


@pytest.mark.parametrize("is_readable", [True, False])
def test_a_replica_whose_store_was_set_aside_knows_who_belongs_to_its_cluster(
    tmp_path: Path, is_readable: bool
) -> None:
    """Of those that it was configured with nobody may be left, and it may have joined from another cluster's name."""
    ward = Ward(tmp_path, "abcd")
    ward.start()
    ward.run(1.0)
    ward.do(PutQueue("q", QueueSettings()))
    gone, wrong = [name for name in ward.names if name != ward.leader][:2]
    if not is_readable:
        ward.stop(wrong)
        (ward.path(wrong) / "data.mdb").write_bytes(b"nonsense" * 10_000)
    assert ward.replicas[ward.leader].change("gateway", AskChange(1, "remove", gone))
    ward.run_until(lambda: gone not in ward.replicas[ward.leader].engine.memberships.known[0].voters)
    ward.run(1.0)
    ward.stop(gone)
    if is_readable:
        ward.keepers[wrong].suspect(DamageError("a test"))
    else:
        ward.start(wrong)
    aside = ward.path(wrong) / "damaged.mdb"
    ward.run_until(aside.exists)
    for _ in range(2):
        engine = ward.replicas[wrong].engine
        assert engine.is_lost
        assert engine.membership.members == ward.replicas[ward.leader].engine.membership.members
        assert engine.membership.cluster == "c"
        ward.stop(wrong)
        ward.start(wrong)
    ward.run_until(lambda: ward.keepers[wrong].tally.repairs == 1)
    ward.close()


THREE = configured({"a": "", "b": "", "c": ""}, "c")
FOUR = THREE.with_learner("d", "d:1")


@pytest.mark.parametrize(
    ("remembered", "last", "expected"),
    [
        (THREE, FOUR, FOUR),
        (FOUR, THREE, FOUR),  # it was catching up, and had not come that far
        (THREE, msgspec.structs.replace(FOUR, cluster="another"), THREE),
        (THREE, THREE.without("c"), THREE),
    ],
    ids=["later", "earlier", "another cluster's", "without itself"],
)
def test_the_members_that_are_begun_with_anew_are_the_last_that_are_known(
    ward: Ward, remembered: Membership, last: Membership, expected: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_members(ward.path("c"), remembered)
    ward.stop("c")
    ward.start("c")
    keeper = ward.keepers["c"]
    keeper._membership = remembered
    patient = Patient("c", "a test", last, Tally(), post=lambda node, message: None, monotonic=lambda: 0.0)
    monkeypatch.setattr(Patient, "is_spared", True)
    keeper.replica = patient
    assert keeper.tick() is Change.FORGOTTEN
    assert isinstance(keeper.replica, Replica)
    assert keeper.replica.engine.membership.members == expected.members


def test_who_cannot_read_a_store_heeds_only_what_is_told_of_later_members_of_its_cluster() -> None:
    three = configured({"a": "", "b": "", "c": ""}, "c")
    four = three.with_learner("d", "d:1")
    known, later = four.with_voter("d"), four.with_voter("d").without("a")
    assert three.age < four.age < known.age < later.age
    assert four.age < four.without("d").age, "a learner that goes"
    patient = Patient("c", "a test", known, Tally(), post=lambda node, message: None, monotonic=lambda: 0.0)
    for told in (None, three, four, msgspec.structs.replace(later, cluster="another")):
        patient.deliver("b", Spared(1, 1, told))
        assert patient.engine.membership == known
    patient.deliver("b", Spared(1, 1, later))
    assert patient.engine.membership == later
    assert patient.engine.memberships.version == 1, "the shard connects to whom it names"


def test_a_damaged_end_of_the_journal_is_never_a_shorter_journal(ward: Ward) -> None:
    """The last entry is acknowledged by the damaged one and the leader only: it must not be voted away."""
    wrong, away = (name for name in ward.names if name != ward.leader)
    leader = ward.leader
    ward.stop(away)
    ward.do(Send("q", 1), encode_block([(b"the last entry that was acknowledged", b"")]))
    ward.stop(leader, wrong)
    flip(ward.path(wrong) / "data.mdb", b"the last entry that was acknowledged")
    ward.start(wrong, away)
    ward.run(10.0)
    assert isinstance(ward.replicas[wrong], Patient)
    assert not any(replica.report().serving for replica in ward.replicas.values()), "nobody leads without the entry"
    ward.start(leader)
    ward.run_until(lambda: is_well(ward))
    queue = ward.do(GetQueue("q"))
    assert isinstance(queue, QueueInfo)
    assert queue.ready == 10


def test_of_two_that_are_damaged_neither_is_set_aside(ward: Ward) -> None:
    """Each may have what the other has lost."""
    wrong = [name for name in ward.names if name != ward.leader]
    ward.stop(*wrong)
    before = {}
    for name in wrong:
        path = ward.path(name) / "data.mdb"
        cut_short(path)
        before[name] = path.read_bytes()
    ward.start(*wrong)
    ward.run(30.0)
    for name in wrong:
        assert isinstance(ward.replicas[name], Patient)
        assert (ward.path(name) / "data.mdb").read_bytes() == before[name]
        assert "waits until the others can spare it" in str(ward.replicas[name].report().trouble)
    assert not any(replica.report().serving for replica in ward.replicas.values())


def test_two_found_at_once_are_repaired_by_nobody_who_is_ailing(ward: Ward) -> None:
    """Both followers find damage at the same time, and go on following: the cluster serves, and loses nothing."""
    wrong = [name for name in ward.names if name != ward.leader]
    for name in wrong:
        ward.replicas[name].scrub.damage = "found in the same tick"
    ward.run(10.0)
    assert {name for name in ward.names if damages(ward)[name] == (1, 0)} == set(wrong)
    assert not any((ward.path(name) / "damaged.mdb").exists() for name in wrong)
    assert all(isinstance(replica, Replica) for replica in ward.replicas.values())
    check_nothing_is_lost(ward)


def test_two_found_one_after_the_other_are_repaired_one_after_the_other(ward: Ward) -> None:
    wrong = [name for name in ward.names if name != ward.leader]
    ward.replicas[wrong[0]].scrub.damage = "found first"
    ward.run_until(lambda: ward.replicas[wrong[0]].engine.is_lost)
    ward.replicas[wrong[1]].scrub.damage = "found while the other had not come back"
    away = set()
    while not is_well(ward):
        ward.run(0.02)
        away.add(frozenset(name for name in ward.names if not ward.replicas[name].engine.counts))
    assert max(map(len, away)) == 1
    assert {name for name in ward.names if damages(ward)[name] == (1, 1)} == set(wrong)
    check_nothing_is_lost(ward)


def test_while_another_is_away_nobody_is_set_aside(ward: Ward) -> None:
    wrong, away = (name for name in ward.names if name != ward.leader)
    flip(ward.path(wrong) / "data.mdb")
    ward.stop(away)
    ward.scrub_now()
    ward.run(10.0)
    assert damages(ward)[wrong] == (1, 0)
    check_nothing_is_lost(ward)
    ward.start(away)
    ward.run_until(lambda: is_well(ward))
    assert damages(ward)[wrong] == (1, 1)


def test_an_ailing_replica_knows_it_after_a_restart_and_answers_no_reads(ward: Ward) -> None:
    wrong, away = (name for name in ward.names if name != ward.leader)
    flip(ward.path(wrong) / "data.mdb")
    ward.stop(away)
    ward.scrub_now()
    ward.run(0.5)
    ward.stop(wrong)
    ward.start(wrong)
    assert ward.replicas[wrong].ailing is not None
    look = ward.keepers[wrong].look(AskLook(1, GetQueue("q")))
    assert isinstance(look.outcome, Refused), "nor answers what it has applied"
    ward.start(away)
    ward.run_until(lambda: is_well(ward))
    check_nothing_is_lost(ward)


def test_an_ailing_leader_brings_another_up_to_date_and_hands_over_but_serves_nothing(ward: Ward) -> None:
    """Besides the dead leader only the ailing replica holds what was committed last: at first nobody else can lead."""
    leader = ward.leader
    wrong, behind = (name for name in ward.names if name != leader)
    ward.stop(behind)
    ward.do(Send("q", 1), encode_block([(b"the tenth", b"")]))
    ward.run(0.1)
    ward.replicas[wrong].scrub.damage = "found just now"
    ward.run(0.1)
    ward.stop(leader)
    ward.start(behind)
    has_led = False
    while ward.replicas[behind].report().serving is False:
        ward.run(0.02)
        has_led |= ward.replicas[wrong].engine.is_leader
        assert not ward.replicas[wrong].report().serving
        assert ward.now_s < 1060.0
    assert has_led
    assert ward.leader == behind
    assert damages(ward)[wrong] == (1, 0)
    queue = ward.do(GetQueue("q"))
    assert isinstance(queue, QueueInfo)
    assert queue.ready == 10


@pytest.mark.parametrize("moment", ["before anything", "set aside", "a new store", "it knows that it is lost"])
def test_a_crash_at_any_step_of_setting_aside_leaves_it_lost_or_ailing(ward: Ward, moment: str) -> None:
    wrong, away = (name for name in ward.names if name != ward.leader)
    flip(ward.path(wrong) / "data.mdb")
    ward.stop(away)
    ward.scrub_now()
    ward.run(0.5)
    ward.stop(wrong)
    path, note = ward.path(wrong), ward.path(wrong) / "ailing.json"
    remembered = note.read_bytes()
    if moment != "before anything":
        (path / "data.mdb").replace(path / "damaged.mdb")
    if moment == "a new store":
        ward.open_store(wrong).close()
    if moment == "it knows that it is lost":
        ward.start(wrong)
        ward.stop(wrong)
        note.write_bytes(remembered)
    ward.start(wrong)
    replica = ward.replicas[wrong]
    if moment == "before anything":
        assert replica.ailing is not None
    elif moment != "it knows that it is lost":
        assert replica.engine.is_lost
    if replica.ailing is None:
        ward.run(3.0)
        assert not replica.engine.counts, "nobody can vouch for it yet"
    ward.start(away)
    ward.run_until(lambda: is_well(ward))
    check_nothing_is_lost(ward)


def test_a_cluster_of_which_all_were_set_aside_does_not_begin_as_an_empty_one(ward: Ward) -> None:
    ward.stop(*ward.names)
    for name in ward.names:
        path = ward.path(name)
        (path / "data.mdb").replace(path / "damaged.mdb")
        (path / "ailing.json").write_bytes(NOTE)
    ward.start()
    ward.run(20.0)
    assert all(replica.engine.is_lost and replica.engine.leader is None for replica in ward.replicas.values())


def test_an_empty_replica_founds_nothing_beside_a_lost_one(ward: Ward) -> None:
    ward.stop(*ward.names)
    for name in ward.names:
        (ward.path(name) / "data.mdb").unlink()
    (ward.path("a") / "ailing.json").write_bytes(NOTE)
    ward.start()
    ward.run(20.0)
    assert all(replica.engine.leader is None for replica in ward.replicas.values())
    assert not any(replica.engine._standing.may_vote() for replica in ward.replicas.values())


def alone(directory: Path) -> Ward:
    return filled(Ward(directory, "a", ScrubSettings(interval_ms=0)))


def test_a_single_replica_says_that_it_is_damaged_and_serves_on(tmp_path: Path) -> None:
    ward = alone(tmp_path)
    flip(ward.path("a") / "data.mdb")
    ward.scrub_now()
    ward.run(5.0)
    assert damages(ward) == {"a": (1, 0)}
    assert "is damaged" in str(ward.replicas["a"].report().trouble)
    assert isinstance(ward.do(GetQueue("q")), QueueInfo)
    ward.ask(Receive("q", 100, 60_000, 77))
    with pytest.raises(DamageError):
        ward.run(1.0)
    ward.close()


def test_a_damaged_replica_that_serves_on_asks_for_access_keys_as_before(tmp_path: Path) -> None:
    """Were it to say that there are none, everybody on its machine would be let in."""
    ward = alone(tmp_path)
    ward.do(KEY)
    index = ward.replicas["a"].report().access_index
    ward.replicas["a"].scrub.damage = "damaged"
    ward.run(0.1)
    report = ward.replicas["a"].report()
    assert (report.serving, report.access_index) == (True, index)
    assert index > 0
    ward.do(msgspec.structs.replace(KEY, id="SECONDADMIN00000"))
    assert ward.replicas["a"].report().access_index > index
    ward.close()


def test_a_single_replica_does_not_start_on_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    ward = alone(tmp_path)
    ward.stop("a")
    path = ward.path("a") / "data.mdb"
    cut_short(path)
    with pytest.raises(DamageError, match="cut short"):
        ward.start("a")


def test_a_message_that_was_never_right_is_not_the_stores_fault(ward: Ward) -> None:
    """Its checksum was wrong when it came, and it is the same everywhere: to set stores aside would help nobody."""
    block = bytearray(encode_block([(b"x" * 100, b"")]))
    block[-1] ^= 1
    ward.do(PutQueue("poison", QueueSettings()))
    ward.do(Send("poison", 1), bytes(block))
    tokens = iter(range(1, 500))

    def receive_again() -> None:
        if any(replica.report().serving for replica in ward.replicas.values()):
            ward.ask(Receive("poison", 1, 1000, next(tokens)))
        ward.run(0.1)

    with pytest.raises(BadChecksumError):
        ward.run_until(receive_again)
    assert set(damages(ward).values()) == {(0, 0)}


def test_a_body_that_rotted_after_it_was_read_once_is_damage(ward: Ward) -> None:
    leader = ward.leader
    received = ward.do(Receive("q", 1, 1000, 5))
    assert isinstance(received, Received)
    ward.run(2.0)
    data = ward.path(leader) / "data.mdb"
    for number in range(9):
        flip(data, MARK + b" %d" % number)
    ward.ask(Receive("q", 9, 1000, 6))
    ward.run_until(lambda: ward.keepers[leader].tally.repairs == 1)
    ward.run_until(lambda: is_well(ward))
    assert damages(ward)[leader] == (1, 1)


def test_what_opens_a_store_that_fails_for_another_reason_is_not_repaired(tmp_path: Path) -> None:
    def fail() -> LmdbStore:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(PermissionError):
        Keeper(
            "a",
            configured("abc"),
            tmp_path,
            open_store=fail,
            make=lambda store, tally, ailing: pytest.fail("there is no store"),
            post=lambda node, message: None,
            monotonic=lambda: 0.0,
        )
    assert read_note(tmp_path) is None


def test_who_spares_another_is_sound_and_holds_all_that_the_other_had_committed() -> None:
    trio = Trio()
    trio.start()
    trio.run(1.0)
    told: list[tuple[str, Message]] = []
    replica = trio.replicas[next(name for name in trio.names if name != trio.leader)]
    replica._health._post = lambda node, message: told.append((node, message))

    def is_spared(index: int) -> bool:
        told.clear()
        replica.deliver("a", Ailing(1, 5, index, "damaged"))
        replica.tick()
        return any(isinstance(message, Spared) and message.round == 5 for _, message in told)

    assert is_spared(replica.engine.durable_index)
    assert not is_spared(replica.engine.durable_index + 1)
    replica.engine._standing._value = None
    assert not is_spared(0), "the word of an unborn replica does not count"
    replica.engine._standing._value = b"1"
    assert is_spared(0)
    trio.block(trio.leader)
    trio.run(0.1)
    replica.disconnected(trio.names[0])
    replica.disconnected(trio.names[1])
    replica.disconnected(trio.names[2])
    replica.tick()
    assert not is_spared(0), "without a leader it does not know what is committed"


def test_entries_that_another_leader_never_committed_are_not_taken_for_those_that_are() -> None:
    """An old leader's tail is long enough, but other than what the ailing replica had committed."""
    trio = Trio()
    trio.start()
    trio.run(1.0)
    old = trio.leader
    for number in range(3):
        trio.do(PutQueue(f"q{number}", QueueSettings()))
    trio.block(old)
    for number in range(3):
        trio.replicas[old].request("gateway", memoryview(encode_item(8, number + 1, PutQueue("r", QueueSettings()))))
        trio.run(0.02)
    trio.run(3.0)
    (ailing,) = {name for name in trio.names if name not in (old, trio.leader)}
    new, behind = trio.replicas[trio.leader].engine, trio.replicas[old]
    index = trio.replicas[ailing].engine.commit_index
    assert behind.engine.last_index >= index, "of other entries"
    told: list[Message] = []
    behind._health._post = lambda node, message: told.append(message)
    behind.deliver(trio.leader, Append(new.term, new.last_index, new.term, [], new.commit_index, 0, 0.0))
    behind.deliver(ailing, Ailing(new.term, 1, index, "damaged"))
    behind.tick()
    assert behind.engine.leader == trio.leader
    assert not any(isinstance(message, Spared) for message in told)


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_sound_replica_leads_rather_than_an_ailing_one(wrong: int) -> None:
    trio = Trio()
    trio.start()
    trio.run(1.0)
    leader = trio.leader
    others = [name for name in trio.names if name != leader]
    trio.replicas[others[wrong]].scrub.damage = "damaged"
    trio.run(0.1)
    trio.crash(leader)
    for _ in range(100):
        trio.run(0.02)
        assert not trio.replicas[others[wrong]].engine.is_leader
    assert trio.leader == others[1 - wrong]


def test_an_ailing_leader_serves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trio = Trio()
    trio.start()
    trio.run(1.0)
    leader = trio.replicas[trio.leader]
    trio.do(PutQueue("q", QueueSettings()))
    trio.do(Send("q", 1, [Run(1, Options(delay_ms=50))]), encode_block([(b"later", b"")]))
    monkeypatch.setattr(leader.engine, "transfer", lambda cause: None)
    leader.scrub.damage = "damaged"
    trio.run(0.1)
    assert leader.engine.is_leader
    assert not leader.report().serving
    assert leader.next_wakeup() > trio.now_s, "it does not wait for what it may not propose"
    item = encode_item(7, 1, GetQueue("q"))
    assert not leader.request("gateway", memoryview(item))


def test_only_answers_of_the_present_round_count() -> None:
    asked: list[Message] = []
    repair = Repair("a", "damaged", voters=lambda: "abcde", tell=asked.append)
    repair.step(0.0)
    for node in "abc":
        repair.heard(node, Spared(1, 1))
    assert not repair.is_spared, "its own word does not count"
    repair.step(ROUND_S)
    for node in "de":
        repair.heard(node, Spared(1, 2))
        repair.heard(node, Spared(1, 2))
    repair.heard("b", Spared(1, 1))
    assert not repair.is_spared, "this was said too long ago"
    repair.heard("b", Spared(1, 2))
    assert repair.is_spared
    assert [message.round for message in asked if isinstance(message, Ailing)] == [1, 2]


@pytest.mark.parametrize("finds_it", ["before anything", "set aside"])
def test_whom_to_ask_is_known_even_if_the_store_cannot_be_opened(ward: Ward, finds_it: str) -> None:
    """The configuration may be older than the record."""
    wrong = follower(ward)
    ward.replicas[ward.leader].change("gateway", AskChange(1, "add", "d", "d:1"))
    record = configured({"a": "", "b": "", "c": ""}, "c").with_learner("d", "d:1")
    ward.run_until(lambda: ward.replicas[wrong].engine.memberships.applied == record)
    ward.stop(wrong)
    path = ward.path(wrong)
    cut_short(path / "data.mdb")
    if finds_it == "set aside":
        ward.start(wrong)
        ward.run_until(lambda: (path / "damaged.mdb").exists())
        ward.stop(wrong)
        (path / "data.mdb").write_bytes(b"nonsense" * 10_000)
    ward.start(wrong)
    patient = ward.replicas[wrong]
    assert isinstance(patient, Patient)
    assert patient.engine.membership == record
    ward.run_until(lambda: is_well(ward))
