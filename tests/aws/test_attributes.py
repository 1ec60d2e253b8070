"""Attributes of messages: SQS's digests of them, and their way through the cluster and back."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.aws.attributes import is_number, keep, show
from api.aws.digests import Attribute, md5_of_attributes, md5_of_body
from api.properties import Properties, Told, decode_properties, encode_properties


def text(value: str, kind: str = "String") -> Attribute:
    return Attribute(kind, value)


@pytest.mark.parametrize(
    ("attributes", "digest"),
    [
        ({"k": text("v")}, "0a77b0642718c3d9dd47090567d11e0d"),
        (
            {"a": text("42", "Number.int"), "b": Attribute("Binary.png", b"\x00\x01")},
            "5ecf6f1c2478fefc5dbe71aae7347553",
        ),
        # Answers of AWS:
        ({"Foo": text("Bar")}, "ae7155c6026991b6d54b11589678bf9c"),
        (
            {"Help.Me": text("Me"), "General": text("Kenobi"), "Hello": text("There")},
            "4c360f3fdafd970e05fae2f149d997f5",
        ),
        ({"General": text("Kenobi"), "Hello": text("There")}, "fca026605781cb4126a1e9044df24232"),
        ({"Hello": text("There")}, "a311262e065454b75da111d535b8dacd"),
        ({"MyAttribute": text("foobar")}, "adb59cd4678ea5a855436b949cd07ab6"),
        ({}, None),
    ],
)
def test_the_digest_of_attributes(attributes: dict[str, Attribute], digest: str | None) -> None:
    assert md5_of_attributes(attributes) == digest


def test_the_digest_of_a_body_is_of_its_utf8() -> None:
    assert md5_of_body(b"test") == "098f6bcd4621d373cade4e832627b4f6"
    assert md5_of_body("wörld".encode()) == hashlib.md5("wörld".encode(), usedforsecurity=False).hexdigest()


# --- there and back ---------------------------------------------------------------------------------------------------

labels = st.sampled_from(["", ".int", ".json", ".a.b-c_1"])
numbers = st.one_of(
    st.integers(-(10**40), 10**40).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"[+-]?(0{0,3}[0-9]{1,8}\.?[0-9]{0,8}|\.[0-9]{1,8})([eE][+-]?[0-9]{1,4})?", fullmatch=True),
)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
given_attributes = st.one_of(
    st.builds(lambda label, value: Attribute("String" + label, value), labels, texts | numbers),
    st.builds(lambda label, value: Attribute("Number" + label, value), labels, numbers.filter(is_number)),
    st.builds(lambda label, value: Attribute("Binary" + label, value), labels, st.binary(min_size=1, max_size=20)),
)


def through_the_cluster(values: dict[str, Any], types: dict[str, Told]) -> Properties:
    return decode_properties(encode_properties(Properties(False, values, types)))


@given(st.dictionaries(texts, given_attributes, max_size=10))
@example({"n": text("1e999", "Number"), "m": text("9" * 256, "Number")})
@example({"n": text(str(2**64), "Number"), "m": text(str(2**64 - 1), "Number"), "l": text(str(-(2**63)), "Number")})
@example({"n": text("-0", "Number"), "m": text("+1", "Number"), "l": text("1.0", "Number"), "k": text("007", "Number")})
@example({"t": text("true"), "n": text("None"), "i": text("1")})
def test_what_sqs_sent_comes_back_to_sqs_as_it_was(attributes: dict[str, Attribute]) -> None:
    kept = through_the_cluster(*keep(attributes))
    assert show(kept.attributes, kept.types) == attributes


@pytest.mark.parametrize(
    ("attribute", "value", "told"),
    [
        (text("a"), "a", None),
        (text("1"), "1", None),
        (text("{}", "String.json"), "{}", Told("String.json")),
        (text("42", "Number"), 42, None),
        (text("-42", "Number.int"), -42, Told("Number.int")),
        (text("1.5", "Number"), 1.5, None),
        (text("1.10", "Number"), 1.1, Told("Number", "1.10")),
        (text("1e3", "Number"), 1000.0, Told("Number", "1e3")),
        (text("007", "Number"), 7, Told("Number", "007")),
        (text("1e999", "Number"), "1e999", Told("Number")),
        (Attribute("Binary", b"\x00"), b"\x00", Told("Binary")),
        (Attribute("Binary.png", b"\x00"), b"\x00", Told("Binary.png")),
    ],
)
def test_other_clients_see_values(attribute: Attribute, value: Any, told: Told | None) -> None:
    values, types = keep({"x": attribute})
    assert values == {"x": value}
    assert type(values["x"]) is type(value)
    assert types.get("x") == told


@pytest.mark.parametrize(
    ("value", "attribute"),
    [
        ("a", text("a")),
        ("", text("")),
        (1, text("1", "Number")),
        (2**64 - 1, text("18446744073709551615", "Number")),
        (0.1, text("0.1", "Number")),
        (1e22, text("1e+22", "Number")),
        (True, text("true")),
        (False, text("false")),
        (b"\x00", Attribute("Binary", b"\x00")),
    ],
)
def test_what_others_sent_has_a_type_in_sqs(value: Any, attribute: Attribute) -> None:
    assert show({"x": value}, {}) == {"x": attribute}
    if attribute.type == "Number":
        assert is_number(str(attribute.value))


@pytest.mark.parametrize("said", ["0", "-1", "+1", "1.", ".5", "1.5e-3", "1E10", "0" * 40])
def test_numbers(said: str) -> None:
    assert is_number(said)


@pytest.mark.parametrize(
    "said", ["", "a", "1a", "0x1", "1 ", " 1", "1_000", "NaN", "Infinity", "-", ".", "1e", "١", "1\n", "1" * 257]
)
def test_what_is_no_number(said: str) -> None:
    assert not is_number(said)
