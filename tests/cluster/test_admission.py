"""Who is let in at the port, and who takes whose identity."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.admission import Here, adopts, refuse
from cluster.membership import Membership
from cluster.wire import VERSION, Hello

MEMBERS = Membership("c1", {"n1": "one:1", "n2": "two:1"}, {"n3": "three:1"}, ("old",))


def hello(name: str, **other: Any) -> Hello:
    fields = {"version": VERSION, "cluster": "c1", "shard": 0, "role": "replica", "name": name} | other
    return Hello(**fields)


def here(*, is_blank: bool = False, membership: Membership = MEMBERS) -> Here:
    return Here("n1", 0, is_blank, membership, membership.removed, ("n1", "n2", "n3"))


LET_IN = {
    "a member": hello("n2"),
    "a learner": hello("n3"),
    "a gateway": hello("n2", role="gateway"),
    "a gateway of a node that is not known here yet": hello("n9", role="gateway"),
    "a member that was wiped": hello("n2", blank=True, address="two:1", cluster="what it was configured with"),
    "a member of later times": hello("n9", address="nine:1"),
    "a member that has moved": hello("n2", address="elsewhere:1"),
}

KEPT_OUT = {
    "another version": (hello("n2", version=9), "the other 9"),
    "another shard": (hello("n2", shard=7), "not 7"),
    "another role": (hello("n2", role="witch"), "'witch' is unknown"),
    "this node's name": (hello("n1"), "name of this node itself"),
    "another cluster's member": (hello("n2", cluster="c2"), "this is cluster c1, but n2 belongs to cluster c2"),
    "another cluster's gateway": (hello("n2", cluster="c2", role="gateway"), "belongs to cluster c2"),
    "a blank one nobody expects": (hello("n9", blank=True, cluster="x", address="nine:1"), "cluster add n9 nine:1"),
    "a blank one elsewhere": (hello("n3", blank=True, address="four:1"), "expected at three:1"),
    "a removed one": (hello("old"), "old was removed from this cluster"),
    "a removed one's gateway": (hello("old", role="gateway"), "was removed"),
    "a blank one with a removed name": (hello("old", blank=True, cluster="x"), "was removed"),
}


@pytest.mark.parametrize("who", LET_IN)
def test_who_belongs_is_let_in(who: str) -> None:
    assert refuse(LET_IN[who], here()) is None
    assert not adopts(LET_IN[who], here())


@pytest.mark.parametrize("who", KEPT_OUT)
def test_who_does_not_is_told_why(who: str) -> None:
    said, words = KEPT_OUT[who]
    refusal = refuse(said, here())
    assert refusal is not None
    assert words in refusal.detail
    assert refusal.removed == ("removed" in who)


def test_a_removed_name_of_another_cluster_is_just_a_stranger() -> None:
    refusal = refuse(hello("old", cluster="c2"), here())
    assert refusal is not None
    assert not refusal.removed, "that cluster may have one of this name"


def test_new_nodes_found_a_cluster_together() -> None:
    new = Membership("c1", {"n1": "one:1", "n2": "two:1"})
    assert refuse(hello("n2", blank=True), here(is_blank=True, membership=new)) is None
    assert refuse(hello("n2", blank=True, cluster="c2"), here(is_blank=True, membership=new)) is not None


def test_a_blank_one_takes_the_identity_of_a_node_that_it_is_configured_with_and_of_no_other() -> None:
    mine = here(is_blank=True, membership=Membership("what it was configured with", {"n1": "", "n2": "", "n3": ""}))
    assert refuse(hello("n2"), mine) is None
    assert adopts(hello("n2"), mine)
    assert refuse(hello("n9"), mine) is not None
    assert not adopts(hello("n9"), mine)
    assert not adopts(hello("n2", blank=True), mine)
    assert not adopts(hello("n2", role="gateway"), mine)
    assert not adopts(hello("n2"), here())
