"""Filters beside a naive interpreter of their language: slow, short, and plainly what docs/filters.md says."""

import fnmatch
import ipaddress
import json
import random
import re
from decimal import Decimal
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage import limits
from storage.conditions import FilterError
from storage.fields import body_fields
from storage.filters import Filter, On, compile_filter
from storage.limits import FILTER_BYTES_MAX
from tests.costs import calls

# --- the naive interpreter --------------------------------------------------------------------------------------------


def wanted(policy: dict[str, Any], fields: dict[str, Any]) -> bool:
    return all(
        any(wanted(alternative, fields) for alternative in value)
        if key == "$or"
        else any(wanted(value, found) for found in objects(fields.get(key)))
        if isinstance(value, dict)
        else any(agrees(condition, leaves(fields.get(key, []))) for condition in value)
        for key, value in policy.items()
    )


def flat(value: Any) -> list[Any]:
    return [leaf for element in value for leaf in flat(element)] if isinstance(value, list) else [value]


def objects(value: Any) -> list[dict[str, Any]]:
    return [found for found in flat(value) if isinstance(found, dict)] or [{}]


def leaves(value: Any) -> list[Any]:
    return [found for found in flat(value) if not isinstance(found, dict)]


def agrees(condition: Any, values: list[Any]) -> bool:
    if condition == {"exists": False}:
        return not values
    return any(holds(condition, value) for value in values)


def holds(condition: Any, value: Any) -> bool:
    if not isinstance(condition, dict):
        return same(condition, value)
    ((name, wish),) = condition.items()
    if name == "exists":
        return True
    if name == "anything-but":
        if isinstance(wish, dict):
            ((inner, patterns),) = wish.items()
            return not any(holds({inner: pattern}, value) for pattern in listed(patterns))
        return not any(same(unwanted, value) for unwanted in listed(wish))
    if name == "numeric":
        pairs = zip(wish[::2], wish[1::2], strict=True)
        return is_number(value) and all(compare(sign, value, bound) for sign, bound in pairs)
    if not isinstance(value, str):
        return False
    if isinstance(wish, dict):
        return holds({name: wish["equals-ignore-case"].lower()}, value.lower())
    if name == "cidr":
        try:
            return ipaddress.ip_address(value) in ipaddress.ip_network(wish, strict=False)
        except ValueError:
            return False
    return {
        "prefix": value.startswith(wish),
        "suffix": value.endswith(wish),
        "equals-ignore-case": value.lower() == wish.lower(),
        "wildcard": re.fullmatch(".*".join(map(re.escape, wish.split("*"))), value, re.DOTALL) is not None,
    }[name]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    if is_number(one) and is_number(other):
        return bool(one == other)
    return type(one) is type(other) and bool(one == other)


def compare(sign: str, value: Any, bound: Any) -> bool:
    return bool(
        {"=": value == bound, ">": value > bound, ">=": value >= bound, "<": value < bound, "<=": value <= bound}[sign]
    )


# --- what is generated ------------------------------------------------------------------------------------------------

TEXTS = st.text(alphabet="abA.Bä\n", max_size=4)
NUMBERS = st.integers(-3, 3) | st.decimals(-3, 3, places=1) | st.sampled_from([10**25, 10**25 + 1])
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.1.1", "10.1.0.0", "::1", "2001:db8::1", "10.0.0.256"])
NETWORKS = st.sampled_from(
    ["10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "::/0", "::1/128", "2001:db8::/32", "10.0.0.9/31"]
)
SCALARS = TEXTS | NUMBERS | ADDRESSES | st.booleans() | st.none()
KEYS = st.sampled_from("abc")
WILDCARDS = st.text(alphabet="ab*", max_size=6).filter(lambda text: "**" not in text)


def pairs(bounds: list[Any]) -> list[Any]:
    low, high = sorted(bounds, key=Decimal)
    return [low, high]


PATTERNS: dict[str, st.SearchStrategy[str]] = {
    "prefix": TEXTS,
    "suffix": TEXTS,
    "equals-ignore-case": TEXTS,
    "wildcard": WILDCARDS,
}
RANGES = st.one_of(
    st.tuples(st.sampled_from(["=", ">", ">=", "<", "<="]), NUMBERS).map(list),
    st.lists(NUMBERS, min_size=2, max_size=2, unique=True).flatmap(
        lambda bounds: st.tuples(st.sampled_from([">", ">="]), st.sampled_from(["<", "<="])).map(
            lambda signs: [signs[0], pairs(bounds)[0], signs[1], pairs(bounds)[1]]
        )
    ),
)
CONDITIONS = st.one_of(
    SCALARS,
    st.booleans().map(lambda there: {"exists": there}),
    *(texts.map(lambda text, name=name: {name: text}) for name, texts in PATTERNS.items()),
    *(TEXTS.map(lambda text, name=name: {name: {"equals-ignore-case": text}}) for name in ("prefix", "suffix")),
    RANGES.map(lambda bounds: {"numeric": bounds}),
    NETWORKS.map(lambda network: {"cidr": network}),
    (SCALARS | st.lists(SCALARS, min_size=1, max_size=3)).map(lambda values: {"anything-but": values}),
    *(
        (texts | st.lists(texts, min_size=1, max_size=2)).map(lambda text, name=name: {"anything-but": {name: text}})
        for name, texts in PATTERNS.items()
    ),
)
LEAVES = st.lists(CONDITIONS, min_size=1, max_size=3)
POLICIES = st.recursive(
    st.dictionaries(KEYS, LEAVES, min_size=1, max_size=2),
    lambda inner: (
        st.dictionaries(KEYS, LEAVES | inner, min_size=1, max_size=2)
        | st.builds(
            lambda policy, alternatives: {**policy, "$or": alternatives},
            st.dictionaries(KEYS, LEAVES | inner, max_size=1),
            st.lists(inner, min_size=2, max_size=3),
        )
    ),
    max_leaves=6,
)
MESSAGES = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
    ),
    max_size=3,
)


class Encoder(json.JSONEncoder):
    """Writes decimals as they are."""

    def encode(self, value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ",".join(f"{json.dumps(key)}:{self.encode(item)}" for key, item in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(self.encode, value)) + "]"
        return str(value) if isinstance(value, Decimal) else json.dumps(value)


def written(value: Any) -> str:
    return Encoder().encode(value)


def compiled_or_refused(policy: Any, on: On) -> Filter | FilterError:
    try:
        return compile_filter(policy, on)
    except FilterError as error:
        return error


# --- tests ------------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(POLICIES, st.lists(MESSAGES, min_size=1, max_size=5))
@example({"a": {"b": [{"exists": False}], "c": [1]}}, [{"a": [{"b": 1}, {"c": 1}]}])
@example({"a": [{"wildcard": "a*a"}]}, [{"a": "a"}])
def test_filters_say_what_the_naive_interpreter_says(policy: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    compiled = compiled_or_refused(written(policy), "body")
    if isinstance(compiled, FilterError):
        assert compiled.code in ("too_many_stars", "too_complex", "too_deep")
        return
    for message in messages:
        fields = body_fields(written(message).encode())
        assert fields == message
        assert compiled.matches(fields) == wanted(policy, message)
        miss = compiled.explain(fields)
        assert (miss is None) == compiled.matches(fields)
        if miss is not None:
            assert miss.position.startswith("/")
            found: Any = policy
            for step in miss.position[1:].split("/"):
                found = found[int(step)] if isinstance(found, list) else found[step]
            assert isinstance(found, list), "a position names a key and its conditions"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab", max_size=3), min_size=1, max_size=5), st.text("ab", max_size=3), st.integers(0, 20))
def test_wildcards_are_those_of_file_names(parts: list[str], between: str, missing: int) -> None:
    pattern = re.sub(r"\*+", "*", "*".join(parts))
    value = between.join(parts)
    compiled = compile_filter(json.dumps({"k": [{"wildcard": pattern}]}))
    for candidate in (value, value[:missing] + value[missing + 1 :]):
        assert compiled.matches({"k": candidate}) == fnmatch.fnmatchcase(candidate, pattern)


@given(st.text(max_size=8), st.text(max_size=4))
def test_affixes_are_wildcards_with_one_star(value: str, text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("*", "\\*")
    for name, pattern in (("prefix", escaped + "*"), ("suffix", "*" + escaped)):
        plain, starred = (
            compile_filter(json.dumps({"k": [{operator: wish}]}))
            for operator, wish in ((name, text), ("wildcard", pattern))
        )
        for candidate in (value, text + value, value + text):
            assert plain.matches({"k": candidate}) == starred.matches({"k": candidate})


@given(ADDRESSES | st.ip_addresses().map(str), st.ip_addresses(), st.integers(0, 128))
def test_networks_are_those_of_the_standard_library(value: str, network: Any, mask: int) -> None:
    cidr = f"{network}/{min(mask, network.max_prefixlen)}"
    compiled = compile_filter(json.dumps({"ip": [{"cidr": cidr}]}))
    assert compiled.matches({"ip": value}) == holds({"cidr": cidr}, value)


NOISE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from([*PATTERNS, "*", "$or"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*PATTERNS, "a", "$or", "anything-but", "numeric", "exists", "cidr"]) | st.text(max_size=2),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    NOISE.map(json.dumps) | st.text(max_size=40) | st.binary(max_size=40),
    st.sampled_from(["attributes", "body"]),
    MESSAGES,
)
def test_compiling_raises_nothing_but_its_error(policy: Any, on: Any, message: dict[str, Any]) -> None:
    compiled = compiled_or_refused(policy, on)
    if isinstance(compiled, FilterError):
        assert compiled.position == "" or compiled.position.startswith("/")
        assert compiled.reason
        assert len(str(compiled).encode()) < 2000
        return
    assert (compiled.explain(message) is None) == compiled.matches(message)


def test_compiling_takes_bounded_time_whatever_is_asked() -> None:
    random.seed(7)
    size = limits.FILTER_BYTES_MAX
    pieces = ['{"a":', "[", '{"anything-but":[', '"x"', ",", "]", "}", '\\"', '"', "1e9", "*", '{"$or":[', '{"b":[1]}']
    hostile = [
        "[" * size,
        '{"a":' * (size // 5),
        '{"a":[' + "1," * (size // 2 - 5) + "1]}",
        '{"a":[{"anything-but":[' + ",".join(f'"{n}"' for n in range(7000)) + "]}]}",
        '{"a":[{"anything-but":{"prefix":[' + ",".join(f'"{n}"' for n in range(7000)) + "]}}]}",
        '{"a":["' + "\\u00e4" * (size // 6 - 5) + '"]}',
        "{" + ",".join(f'"{n}":[1]' for n in range(5000)) + "}",
        '{"a":[' + "9" * (size - 10) + "]}",
        '{"a":[{"wildcard":"' + "*a" * 511 + '"}]}',
        '"' + '\\"' * (size // 2 - 1),
        *("".join(random.choices(pieces, k=size // 6))[:size] for _ in range(20)),
    ]
    for policy in hostile:
        assert calls(lambda policy=policy: compiled_or_refused(policy, "body")) < 16 * FILTER_BYTES_MAX
        compiled = compiled_or_refused(policy, "body")
        assert not isinstance(compiled, FilterError) or len(str(compiled)) < 2000
