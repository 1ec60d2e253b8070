"""Patterns of routing keys: alone, in the index, and beside a naive interpreter."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage.limits import ROUTING_CHARACTERS_MAX, ROUTING_WORDS_MAX
from storage.patterns import Pattern, PatternError, PatternIndex, words_of_key, words_of_pattern
from tests.costs import calls


def index_of(*patterns: str) -> PatternIndex:
    index = PatternIndex()
    for pattern in patterns:
        index.add(pattern, pattern)
    return index


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("orders", ["orders"], ["", "order", "orders.de", "Orders", "orders."]),
        ("", [""], ["orders", "."]),
        ("orders.de", ["orders.de"], ["orders", "orders.de.paid", "ordersXde"]),
        ("*", ["orders", "*", "#"], ["", "orders.de"]),
        ("#", ["", "orders", "orders.de", "#", "a.b.c.d"], []),
        ("orders.*.paid", ["orders.de.paid", "orders.*.paid"], ["orders.paid", "orders.de.eu.paid", "orders.de.open"]),
        ("orders.#", ["orders", "orders.de", "orders.de.paid"], ["reorders", "", "a.orders"]),
        ("#.paid", ["paid", "orders.paid", "orders.de.paid", "paid.paid"], ["orders.paid.de", "paid.de", ""]),
        ("orders.#.paid", ["orders.paid", "orders.de.paid", "orders.paid.paid"], ["orders", "paid", "orders.de"]),
        ("#.#", ["", "a", "a.b"], []),
        ("#.*", ["a", "a.b"], [""]),
        ("*.#.*", ["a.b", "a.b.c"], ["a", ""]),
        ("#.a.#", ["a", "b.a", "a.b", "b.a.b"], ["b", ""]),
        ("#.a.b.#.a.b", ["a.b.a.b", "a.a.b.b.a.b", "a.b.a.a.b"], ["a.b", "a.b.a", "a.b.b.a"]),
        ("a.*.#.b", ["a.b.b", "a.x.y.b"], ["a.b", "a.x.b.c"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], does_not: list[str]) -> None:
    compiled, index = Pattern(pattern), index_of(pattern)
    for key in fits:
        assert compiled.matches(key), key
        assert index.match(key) == [pattern], key
    for key in does_not:
        assert not compiled.matches(key), key
        assert index.match(key) == [], key


def test_the_page_is_true() -> None:
    page = (Path(__file__).parents[2] / "docs" / "filters.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| ((?:`[^`]+` )+)\| ((?:`[^`]+` )*)\|$", page.partition("## Patterns")[2], re.M)
    assert len(rows) == 5
    for pattern, fit, do_not in rows:
        compiled = Pattern(pattern)
        assert all(compiled.matches(key) for key in re.findall("`(.+?)`", fit))
        assert not any(compiled.matches(key) for key in re.findall("`(.+?)`", do_not))
    assert f"{ROUTING_CHARACTERS_MAX} characters and {ROUTING_WORDS_MAX} words" in page


@pytest.mark.parametrize(
    ("pattern", "position", "reason"),
    [
        (".", 0, "a word is missing"),
        ("orders.", 7, "a word is missing"),
        (".orders", 0, "a word is missing"),
        ("orders..paid", 7, "a word is missing"),
        ("orders.de*", 9, "* stands for whole words"),
        ("orders.#x.paid", 7, "# stands for whole words"),
        ("**", 0, "* stands for whole words"),
        ("ab\ncd", 2, "control characters"),
        ("ab.c\x7f", 4, "control characters"),
        ("x" * 256, 255, "256 characters, at most 255"),
        (".".join("x" * 33), 64, "33 words, at most 32"),
    ],
)
def test_refusals_name_the_character(pattern: str, position: int, reason: str) -> None:
    with pytest.raises(PatternError) as caught:
        Pattern(pattern)
    assert caught.value.position == position
    assert caught.value.reason.startswith(reason)
    index = index_of("a.#")
    with pytest.raises(PatternError):
        index.add(pattern, "name")
    assert index.match("a.b") == ["a.#"], "nothing has changed"


def test_limits() -> None:
    assert len(words_of_key("x" * ROUTING_CHARACTERS_MAX)) == 1
    assert len(words_of_pattern(".".join("*" * ROUTING_WORDS_MAX))) == ROUTING_WORDS_MAX
    assert words_of_key("a*.#b") == ["a*", "#b"], "in a key they are only characters"
    with pytest.raises(PatternError) as caught:
        words_of_key("a..b")
    assert caught.value.position == 2


def test_a_name_comes_once_and_in_order_whatever_the_order_of_adding() -> None:
    patterns = [("a.#", "b"), ("a.*", "c"), ("#", "a"), ("a.b", "b"), ("x", "d")]
    for order in (patterns, patterns[::-1]):
        index = PatternIndex()
        for pattern, name in order:
            index.add(pattern, name)
        assert index.match("a.b") == ["a", "b", "c"]


def test_what_is_removed_is_gone_and_leaves_nothing_behind() -> None:
    index = index_of("a.#", "a.#.b", "a.*.c")
    index.add("a.#", "other")
    index.remove("a.#", "a.#")
    assert index.match("a.b") == ["a.#.b", "other"]
    for pattern in ("a.#.b", "a.*.c"):
        index.remove(pattern, pattern)
    assert index.match("a.b") == ["other"]
    index.remove("a.#", "other")
    assert not index._root.next


# --- beside a naive interpreter ---------------------------------------------------------------------------------------


def fits(pattern: list[str], key: list[str]) -> bool:
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(fits(pattern[1:], key[skipped:]) for skipped in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and fits(pattern[1:], key[1:])


PATTERNS = st.lists(st.sampled_from("ab*#"), max_size=6)
KEYS = st.lists(st.sampled_from("abc*#"), max_size=7)


@settings(max_examples=300)
@given(st.lists(PATTERNS, min_size=1, max_size=6), st.lists(KEYS, min_size=1, max_size=6), st.data())
@example([["#", "a", "#"]], [["#", "a"]], None)
def test_patterns_say_what_the_naive_interpreter_says(
    patterns: list[list[str]], keys: list[list[str]], data: st.DataObject | None
) -> None:
    named = {str(number): ".".join(words) for number, words in enumerate(patterns)}
    index = PatternIndex()
    for name, pattern in named.items():
        index.add(pattern, name)
    gone = data.draw(st.sets(st.sampled_from(sorted(named)))) if data else set()
    for name in sorted(gone):
        index.remove(named[name], name)
    for words in keys:
        key = ".".join(words)
        expected = [name for name, pattern in named.items() if fits(pattern.split(".") if pattern else [], words)]
        assert [name for name, pattern in named.items() if Pattern(pattern).matches(key)] == expected
        assert index.match(key) == [name for name in expected if name not in gone]


def test_the_worst_patterns_are_bounded() -> None:
    key = ".".join("a" * ROUTING_WORDS_MAX)
    hopeless = Pattern(".".join(["#", "a"] * 15 + ["#", "b"]))
    index = PatternIndex()
    for number in range(1000):
        words = ["*" if number >> bit & 1 else "a" for bit in range(10)]
        index.add(".".join(["#", *words, "#", "a", "#", "a"]), str(number))
    assert not hopeless.matches(key)
    assert calls(lambda: hopeless.matches(key)) < 10 * ROUTING_WORDS_MAX
    assert len(index.match(key)) == 1000
    assert (
        calls(lambda: index.match(key)) < 4 * 1000 * ROUTING_WORDS_MAX * 17
    )  # each word of the key meets each step of each pattern
