"""Attributes with SQS types as fields, and numbers as they are written."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.aws.attributes import keep
from api.aws.digests import Attribute
from api.properties import Properties, encode_properties
from storage.fields import Fields, attribute_fields, body_fields, exact, nesting, number, without_texts
from storage.filters import compile_filter


def sqs_fields(**attributes: tuple[str, str | bytes]) -> Fields:
    """Fields of attributes that came through SQS or SNS, as the gateway keeps them."""
    values, types = keep({name: Attribute(*attribute) for name, attribute in attributes.items()})
    return attribute_fields(encode_properties(Properties(attributes=values, types=types)))


@pytest.mark.parametrize(
    ("data_type", "text", "value"),
    [
        ("String", "7", "7"),
        ("String.email", "a@b", "a@b"),
        ("String.Number", "7", "7"),
        ("Number", "7", 7),
        ("Number", "-3.015E2", Decimal("-301.5")),
        ("Number.int", "+12345678901234567890123", 12345678901234567890123),
        ("Number", "0.1000000000000000055511151231257827", Decimal("0.1000000000000000055511151231257827")),
        ("Number", "1.10", Decimal("1.1")),
        ("Number", ".5", Decimal("0.5")),
        ("Number", "5.", 5),
        ("Number", "1e999", Decimal("1e999")),
        ("Number", "1e99999", "1e99999"),
        ("String.Array", '["a", 1, 2.50, true, null, ["b"]]', ["a", 1, Decimal("2.5"), True, None, ["b"]]),
        ("String.Array", "['a']", []),
        ("String.Array", '{"a": 1}', []),
        ("String.Array", "[" * 65 + "]" * 65, []),
    ],
)
def test_types_of_sqs(data_type: str, text: str, value: Any) -> None:
    found = sqs_fields(name=(data_type, text))
    assert found == {"name": value}
    assert (exact(found["name"]) is None) == isinstance(value, str | list)


def test_bytes_do_not_exist_for_filters() -> None:
    fields = sqs_fields(a=("Binary", b"\0"), b=("Binary.png", b"\0"), c=("String", "x"))
    assert fields == {"c": "x"}
    assert attribute_fields(encode_properties(Properties(attributes={"a": b"\0", "b": 1}))) == {"b": 1}
    assert compile_filter('{"a": [{"exists": false}]}').matches(fields)


def test_an_array_matches_if_any_element_does() -> None:
    fields = sqs_fields(store=("String.Array", '["value1", "value2"]'))
    assert compile_filter('{"store": ["value2"]}').matches(fields)
    assert compile_filter('{"store": [{"anything-but": "value1"}]}').matches(fields)
    assert not compile_filter('{"store": ["value3"]}').matches(fields)


@pytest.mark.parametrize(
    "text", ["1_000", "NaN", "Infinity", "0x10", "٣", "1e99999", "", " ", "+", ".", "1e", "1" * 641]
)
def test_what_is_no_number(text: str) -> None:
    assert number(text) is None


def test_what_is_a_number() -> None:
    assert [exact(value) for value in (True, None, "1", b"1", float("inf"))] == [None] * 5
    assert [exact(value) for value in (1, Decimal("1.0"), 1.0)] == [1, 1, 1]


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
def test_a_number_is_what_was_written(value: Decimal) -> None:
    assert number(str(value)) == value
    fields = body_fields(b'{"a": %b}' % str(value).encode())
    assert fields is not None
    assert exact(fields["a"]) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_the_shortest_decimal_that_reads_back_as_it(value: float) -> None:
    found = exact(value)
    assert isinstance(found, Decimal)
    assert float(found) == value
    assert number(repr(value)) == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\[]{}', max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"\\[{', max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


def depth(value: Any) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 1 + max(map(depth, value.values()), default=0) if isinstance(value, dict) else 0


@given(JSON)
def test_depth_is_counted_without_parsing(value: Any) -> None:
    assert nesting(without_texts(json.dumps(value).encode())) == depth(value)
