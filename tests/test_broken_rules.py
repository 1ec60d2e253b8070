"""Every switch that breaks a rule still breaks something: what it puts in a place is called as what was there.

A name that is gone would leave the rule whole, and a call that no longer fits would be noticed for the wrong reason.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import lmdb
import pytest

import cluster
import storage
from tests.chaos.broken import BROKEN as CHAOS
from tests.cluster.bench import Bench
from tests.simulation import broken_engines
from tests.simulation.broken import BROKEN as SIMULATION
from tests.simulation.broken import Variant

Places = dict[Any, dict[str, Any]]

ENGINES = {settings["engine_class"] for settings in broken_engines.BROKEN.values() if "engine_class" in settings}
BASES = {Variant.engine, Variant.replica, Variant.disk}
OWN_CLASSES = ENGINES | {
    kind for rule in SIMULATION.values() for kind in (rule.engine, rule.replica, rule.disk) if kind not in BASES
}


def misfit(there: Any, instead: Any) -> str | None:
    """Why `instead` cannot be called as what was `there`, if both are functions."""
    if not (inspect.isfunction(there) and inspect.isfunction(instead)):
        return None
    signature, kinds = inspect.signature(instead), inspect.Parameter
    asked = inspect.signature(there).parameters.values()
    named = {each.name: None for each in asked if each.kind is kinds.KEYWORD_ONLY}
    positional = [each for each in asked if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    for count in {len(positional), sum(each.default is kinds.empty for each in positional)}:
        try:
            signature.bind(*[None] * count, **named)
        except TypeError as error:
            return f"{instead} takes the place of {there}: {error}"
    return None


@pytest.mark.parametrize("rule", SIMULATION.values(), ids=SIMULATION)
def test_what_the_simulation_replaces_is_there(rule: Variant) -> None:
    assert rule != Variant(), "it breaks nothing"
    for place, names in rule.patches.items():
        for name, instead in names.items():
            assert hasattr(place, name), f"{place} has no {name} any more"
            assert misfit(getattr(place, name), instead) is None


@pytest.mark.parametrize("kind", sorted(OWN_CLASSES, key=lambda kind: kind.__name__))
def test_what_a_class_of_its_own_replaces_is_there(kind: type) -> None:
    (base,) = kind.__bases__
    replaced = [name for name, value in vars(kind).items() if inspect.isfunction(value) and name != "__init__"]
    assert replaced or "__init__" in vars(kind), "it breaks nothing"
    for name in replaced:
        assert hasattr(base, name), f"{base} has no {name} any more"
        assert misfit(getattr(base, name), vars(kind)[name]) is None


@pytest.mark.parametrize("kind", sorted(ENGINES, key=lambda kind: kind.__name__))
def test_what_a_broken_engine_reads_or_sets_of_itself_is_there(kind: type) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    chains = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    engine = Bench().engine
    assert [chain for chain in sorted(chains) if chain.startswith("self.") and not has(engine, chain)] == []


def has(thing: object, chain: str) -> bool:
    """Whether `chain`, a name with attributes, can be followed from `thing`."""
    for name in chain.split(".")[1:]:
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True


def places() -> Iterator[Any]:
    """All that a node consists of: its modules, and their classes."""
    for package in (storage, cluster):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("storage", "cluster"):
            yield module
            yield from (each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == name)
    yield lmdb


def changed(before: Places) -> Places:
    return {
        place: names
        for place, old in before.items()
        if (names := {name: value for name, value in vars(place).items() if name not in old or old[name] is not value})
    }


@pytest.mark.parametrize("breaks", CHAOS.values(), ids=CHAOS)
def test_what_the_real_nodes_replace_is_there(breaks: Callable[[], None]) -> None:
    before = {place: dict(vars(place)) for place in places()}
    try:
        breaks()
        found = changed(before)
    finally:
        for place, names in changed(before).items():
            for name in names:
                if name in before[place]:
                    setattr(place, name, before[place][name])
                else:
                    delattr(place, name)
    assert found, "it breaks nothing"
    for place, names in found.items():
        for name, instead in names.items():
            assert name in before[place], f"{place} has no {name} any more"
            assert misfit(before[place][name], instead) is None
