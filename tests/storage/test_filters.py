"""Filters: the language as docs/filters.md tells it, what is refused and where, explanations, and bounds."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from storage import limits
from storage.block import encode_block, parts
from storage.conditions import _SMALL_OF, FilterError, fold
from storage.fields import attribute_fields, body_fields
from storage.filters import Filter, On, compile_filter
from tests.costs import calls

PAGE = (Path(__file__).parents[2] / "docs" / "filters.md").read_text()
HEADER = re.compile(r"\| filter \| (attributes|body|refused at) \|")
ROW = re.compile(r"\| `(.+?)` \| (?:`(.+?)`|the filter) \| (.+) \|")


def rows(kind: str) -> list[tuple[str, str, str]]:
    found, current = [], ""
    for line in PAGE.splitlines():
        if header := HEADER.match(line):
            current = header[1]
        elif current == kind and (row := ROW.fullmatch(line)):
            found.append((row[1], row[2] or "", row[3]))
        elif not line.startswith("|"):
            current = ""
    return found


def wants(policy: Any, message: Any, on: On = "attributes") -> bool:
    """Whether the message is wanted; both go the whole way through their encodings."""
    text = policy if isinstance(policy, str) else json.dumps(policy)
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    properties = b"" if on == "body" else msgspec.msgpack.encode({"a": message})
    (part,) = parts(encode_block([(body, properties)]), 1)
    compiled = compile_filter(text, on)
    fields = compiled.fields(part)
    assert (compiled.explain(fields) is None) == compiled.matches(fields)
    return compiled.matches(fields)


def refusal(policy: Any, on: On = "attributes") -> FilterError:
    with pytest.raises(FilterError) as caught:
        compile_filter(policy if isinstance(policy, bytes | str) else json.dumps(policy), on)
    return caught.value


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_examples() -> None:
    assert (len(rows("attributes")), len(rows("body")), len(rows("refused at"))) == (46, 19, 12)


@pytest.mark.parametrize(("policy", "message", "answer"), rows("attributes"))
def test_the_page_is_true_of_attributes(policy: str, message: str, answer: str) -> None:
    assert wants(policy, json.loads(message)) == {"yes": True, "no": False}[answer]


@pytest.mark.parametrize(("policy", "message", "answer"), rows("body"))
def test_the_page_is_true_of_bodies(policy: str, message: str, answer: str) -> None:
    assert wants(policy, message.encode(), "body") == {"yes": True, "no": False}[answer]


@pytest.mark.parametrize(("policy", "position", "reason"), rows("refused at"))
def test_the_page_is_true_of_refusals(policy: str, position: str, reason: str) -> None:
    error = refusal(policy)
    assert error.position == position
    assert error.reason.startswith(reason)


def test_the_page_tells_the_limits() -> None:
    told = set(map(int, re.findall(r"^\| (\d+) \|", PAGE, re.M)))
    assert told == {
        limits.FILTER_BYTES_MAX,
        limits.FILTER_KEYS_MAX,
        limits.FILTER_COMBINATIONS_MAX,
        limits.FILTER_NESTING_MAX,
        limits.FILTER_TEXT_CHARACTERS_MAX,
        limits.FILTER_NUMBER_CHARACTERS_MAX,
        limits.FILTER_STARS_MAX,
    }
    for limit in (
        limits.FILTER_BODY_BYTES_MAX,
        limits.FILTER_BODY_NESTING_MAX,
        limits.FILTER_BODY_DIGITS_MAX,
        limits.FILTER_STEPS_MAX,
    ):
        assert f" {limit} " in PAGE.replace("\n", " ")


# --- what SNS and EventBridge do, beyond the page ---------------------------------------------------------------------

S3 = {"Records": {"s3": {"object": {"key": [{"prefix": "auto-"}]}}, "eventName": [{"prefix": "ObjectCreated:"}]}}
PUT = {"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "auto-1.xml"}}}
REMOVED = {"eventName": "ObjectRemoved:Delete", "s3": {"object": {"key": "auto-1.xml"}}}
HOME = {"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "home-1.xml"}}}


@pytest.mark.parametrize(
    ("policy", "message", "answer"),
    [
        (S3, {"Records": [PUT]}, True),
        (S3, {"Records": [REMOVED]}, False),
        (S3, {"Records": [HOME]}, False),
        (S3, {"Records": [REMOVED, HOME]}, False),
        (S3, {"Records": [HOME, PUT]}, True),
        (S3, {"Records": [[HOME], [[PUT]]]}, True),
        (S3, {"Records": PUT}, True),
        (S3, {"Records": "ObjectCreated:Put"}, False),
        ({"a": {"b": [1]}}, {"a": [5, {"b": 1}]}, True),
        ({"a": {"b": [1]}}, {"a": 1}, False),
        ({"a": {"b": [{"exists": False}]}}, {"a": [1]}, True),
        ({"a": [1]}, {"a": [{"b": 1}, 1]}, True),
        ({"a": [{"exists": True}]}, {"a": [{"b": 1}]}, False),
        ({"a": [{"exists": False}]}, {"a": [{"b": 1}]}, True),
        ({"a": [{"exists": True}]}, {"a": [[], [False]]}, True),
        ({"a": {"b": [{"exists": False}], "c": [1]}}, {"a": [{"b": 1, "c": 1}, {"c": 1}]}, True),
        ({"a": {"b": [{"exists": False}], "c": [1]}}, {"a": [{"b": 1, "c": 1}, {"c": 2}]}, False),
        (
            {"d": {"$or": [{"v4": [{"cidr": "10.0.0.0/24"}]}, {"v6": [{"cidr": "::1/128"}]}]}},
            {"d": {"v6": "::1"}},
            True,
        ),
        ({"d": {"$or": [{"v4": [{"cidr": "10.0.0.0/24"}]}, {"v6": [{"cidr": "::1/128"}]}]}}, {"v6": "::1"}, False),
        ({"a": {"b": ["x"], "$or": [{"c": [1]}, {"d": [2]}]}}, {"a": [{"b": "x"}, {"c": 1}]}, False),
        ({"a": {"b": ["x"], "$or": [{"c": [1]}, {"d": [2]}]}}, {"a": [{"b": "x", "d": 2}, {"c": 1}]}, True),
        ({"a": [300]}, b'{"a": 3.0e2}', True),
        ({"a": [0]}, b'{"a": -0.0}', True),
        ('{"a": [0.1]}', b'{"a": 0.1000}', True),
        ('{"a": [0.1]}', b'{"a": 0.1000000000000000055511151231257827}', False),
        ('{"a": [{"numeric": ["<", 1e400]}]}', b'{"a": 1e399}', True),
        ('{"a": [{"numeric": [">", 9007199254740992]}]}', b'{"a": 9007199254740993}', True),
        ({"a": ["x"]}, b' \n{"a": "x"}\t', True),
        ({"a": ["x"]}, b'{"a": "y", "a": "x"}', True),
        ({"a": ["ä€😀"]}, '{"a": "\\u00e4€\\ud83d\\ude00"}'.encode(), True),
        ({"a": [None, True]}, {"a": [False, 0, 1, ""]}, False),
        ({"a": [None, False]}, {"a": [True, None]}, True),
        ({"a": [{"anything-but": ""}]}, {"a": None}, True),
        ({"a": [{"anything-but": [None, 1]}]}, {"a": [None, 1]}, False),
        ({"a": [{"anything-but": {"suffix": "x"}}]}, {"a": "ax"}, False),
        ({"a": [{"anything-but": {"equals-ignore-case": ["X", "y"]}}]}, {"a": "Y"}, False),
        ({"a": [{"anything-but": {"equals-ignore-case": ["X", "y"]}}]}, {"a": "z"}, True),
        ({"a": [{"anything-but": "x"}, {"anything-but": "y"}]}, {"a": "x"}, True),
        ({"a": [{"prefix": ""}]}, {"a": ""}, True),
        ({"a": [{"prefix": ""}]}, {"a": 1}, False),
        ({"a": [{"suffix": ""}, 1]}, {"a": "x"}, True),
        ({"a": [{"prefix": {"equals-ignore-case": "ÄB"}}]}, {"a": "äBc"}, True),
        ({"a": [{"prefix": {"equals-ignore-case": "ÄB"}}]}, {"a": "ä"}, False),
        ({"a": [{"suffix": {"equals-ignore-case": ""}}]}, {"a": "x"}, True),
        ({"a": [{"suffix": {"equals-ignore-case": "bc"}}]}, {"a": "c"}, False),
        ({"a": [{"cidr": "10.0.0.77/24"}]}, {"a": "10.0.0.1"}, True),
        ({"a": [{"cidr": "0.0.0.0/0"}]}, {"a": "::1"}, False),
        ({"a": [{"cidr": "::/0"}]}, {"a": "10.0.0.1"}, False),
        ({"a": [{"cidr": "::/0"}]}, {"a": "::ffff:10.0.0.1"}, True),
        ({"a": [{"cidr": "0.0.0.0/0"}]}, {"a": "10.0.0.256"}, False),
        ({"a": [{"cidr": "0.0.0.0/0"}]}, {"a": "010.0.0.1"}, False),
        ({"a": [{"cidr": "fe80::/10"}]}, {"a": "fe80::1%eth0"}, False),
        ({"a": [{"cidr": "0.0.0.0/0"}]}, {"a": 167772161}, False),
        ({"a": [{"wildcard": "*"}]}, {"a": ""}, True),
        ({"a": [{"wildcard": "*"}]}, {"a": 1}, False),
        ({"a": [{"wildcard": "a*a"}]}, {"a": "a"}, False),
        ({"a": [{"wildcard": "a*a"}]}, {"a": "aa"}, True),
        ({"a": [{"wildcard": "*ab*ab*"}]}, {"a": "aab"}, False),
        ({"a": [{"wildcard": "*ab*bc"}]}, {"a": "abc"}, False),
        ({"a": [{"wildcard": "*ab*b"}]}, {"a": "xab"}, False),
        ({"a": [{"wildcard": "*ab*ab*"}]}, {"a": "xxab"}, False),
        ({"a": [{"wildcard": "*ab*ab*"}]}, {"a": "abxab"}, True),
        ({"a": [{"wildcard": "a.c"}]}, {"a": "abc"}, False),
        ({"a": [{"wildcard": "\\\\*\\*"}]}, {"a": "\\n*"}, True),
    ],
)
def test_bodies(policy: Any, message: Any, answer: bool) -> None:
    assert wants(policy, message, "body") == answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b'"a"',
        b"[]",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": NaN}',
        b'{"a": 1e99999}',
        b'{"a": 1e+00001}',
        b'{"a": 01}',
        b'{"a": "\x01"}',
        b'{"a": ' + b"9" * 641 + b"}",
        b'{"a": 0.' + b"0" * 641 + b"1}",
        b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"a": ' + b"[" * 100_000,
        b'{"a": "' + b"x" * limits.FILTER_BODY_BYTES_MAX + b'"}',
    ],
)
def test_what_is_no_object_within_limits_matches_nothing(body: bytes) -> None:
    assert body_fields(body) is None
    assert not wants({"b": [{"exists": False}]}, body, "body")


def test_the_limits_of_a_body_are_where_they_are_said_to_be() -> None:
    assert body_fields(b'{"a": ' + b"9" * 640 + b"}") == {"a": 10**640 - 1}
    assert body_fields(b'{"a": ' + b"[" * 63 + b"]" * 63 + b"}") is not None
    text = b"x" * (limits.FILTER_BODY_BYTES_MAX - 9)
    assert body_fields(b'{"a": "%b"}' % text[1:]) == {"a": text[1:].decode()}
    digits, brackets = b"9" * 10_000, b'[{\\"' * 1000
    assert body_fields(b'{"a": "%b%b\\\\"}' % (digits, brackets)) is not None, "in a text they are only characters"


def test_attributes_that_cannot_be_read_are_none() -> None:
    assert attribute_fields(b"\xc1") == attribute_fields(b"") == {}
    assert attribute_fields(msgspec.msgpack.encode({"b": True, "z": 1, "a": {"k": 1.5}})) == {"k": 1.5}


def test_case_is_ignored_by_a_table_that_agrees_with_unicode() -> None:
    for capital, small in _SMALL_OF.items():
        assert chr(capital).lower() == chr(small)
    ranges = (*range(0x41, 0x180), *range(0x391, 0x3AC), *range(0x400, 0x430))
    missing = {chr(code) for code in ranges if chr(code).lower() != chr(code) and code not in _SMALL_OF}
    assert missing == {"İ"}, "whose small letter takes two"
    assert fold("SLOOP Ärger ΑΎΡΑ ЁЖ") == "sloop ärger αύρα ёж"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "position", "code"),
    [
        (b"\xff", "", "not_json"),
        ("\ud800", "", "not_json"),
        ("", "", "not_json"),
        ('{"a": [1]', "", "not_json"),
        ('{"a": [1]} 2', "", "not_json"),
        ("[1]", "", "not_an_object"),
        ("null", "", "not_an_object"),
        ({"a": {}}, "/a", "empty_object"),
        ({"a": {"b": {"c": "x"}}}, "/a/b/c", "not_a_list"),
        ({"a": [1], "b": [[1]]}, "/b/0", "not_a_value"),
        ({"a/b~c": 5}, "/a~1b~0c", "not_a_list"),
        ('{"\\ud800": [1]}', "/?", "not_text"),
        ('{"a": ["\\udc00"]}', "/a/0", "not_text"),
        ('{"a": [{"prefix": "a", "prefix": "b"}]}', "/a/0", "not_one_operator"),
        ({"a": [{}]}, "/a/0", "not_one_operator"),
        ({"a": [{"exists": "no"}]}, "/a/0/exists", "not_boolean"),
        ({"a": [{"exists": 1}]}, "/a/0/exists", "not_boolean"),
        ({"a": [{"prefix": 5}]}, "/a/0/prefix", "not_text"),
        ({"a": [{"prefix": {"suffix": "x"}}]}, "/a/0/prefix/suffix", "unknown_operator"),
        ({"a": [{"equals-ignore-case": None}]}, "/a/0/equals-ignore-case", "not_text"),
        ({"a": [{"wildcard": {"equals-ignore-case": "x"}}]}, "/a/0/wildcard", "not_text"),
        ({"a": [{"equals-ignore-case": {"prefix": "x"}}]}, "/a/0/equals-ignore-case", "not_text"),
        ({"a": [{"anything-but": []}]}, "/a/0/anything-but", "empty_array"),
        ({"a": [{"anything-but": [1, [2]]}]}, "/a/0/anything-but/1", "not_a_value"),
        ({"a": [{"anything-but": {"numeric": ["=", 1]}}]}, "/a/0/anything-but/numeric", "unknown_operator"),
        ({"a": [{"anything-but": {"prefix": ["a", 1]}}]}, "/a/0/anything-but/prefix/1", "not_text"),
        ({"a": [{"numeric": []}]}, "/a/0/numeric", "bad_range"),
        ({"a": [{"numeric": 5}]}, "/a/0/numeric", "bad_range"),
        ({"a": [{"numeric": ["!=", 5]}]}, "/a/0/numeric/0", "bad_range"),
        ({"a": [{"numeric": [[], 5]}]}, "/a/0/numeric/0", "bad_range"),
        ({"a": [{"numeric": ["<", 5, ">", 1]}]}, "/a/0/numeric/0", "bad_range"),
        ({"a": [{"numeric": [">", 5, "=", 7]}]}, "/a/0/numeric/2", "bad_range"),
        ({"a": [{"numeric": [">", 5, "<", True]}]}, "/a/0/numeric/3", "not_a_number"),
        ({"a": [{"numeric": [">", 5, "<", 5.0]}]}, "/a/0/numeric/3", "empty_range"),
        ({"a": [{"numeric": [">", 5, "<"]}]}, "/a/0/numeric", "bad_range"),
        ('{"a": [{"numeric": ["=", NaN]}]}', "/a/0/numeric/1", "bad_number"),
        ('{"a": [Infinity]}', "/a/0", "bad_number"),
        ('{"a": [1e99999]}', "/a/0", "bad_number"),
        ('{"a": [' + "1" * 65 + "]}", "/a/0", "bad_number"),
        ({"a": [{"cidr": "10.0.0.0"}]}, "/a/0/cidr", "bad_cidr"),
        ({"a": [{"cidr": "10.0.0/8"}]}, "/a/0/cidr", "bad_cidr"),
        ({"a": [{"cidr": "::/129"}]}, "/a/0/cidr", "bad_cidr"),
        ({"a": [{"cidr": "::/٣"}]}, "/a/0/cidr", "bad_cidr"),
        ({"a": [{"cidr": "::/-1"}]}, "/a/0/cidr", "bad_cidr"),
        ({"a": [{"cidr": 1}]}, "/a/0/cidr", "not_text"),
        ({"a": [{"wildcard": "\\n"}]}, "/a/0/wildcard", "bad_wildcard"),
        ({"a": [{"wildcard": "a\\"}]}, "/a/0/wildcard", "bad_wildcard"),
        ({"$or": {"a": [1]}}, "/$or", "bad_or"),
        ({"$or": [{"a": [1]}, {}]}, "/$or/1", "empty_object"),
        ({"$or": [{"a": [1]}, 5]}, "/$or/1", "not_an_object"),
        ({"$or": [{"a": [1]}, {"b": [1], "prefix": ["x"]}]}, "/$or/1", "bad_or"),
        ({"$or": [{"a": [1]}, {"$or": [{"a": [1]}, {"b": [{"prefix": 1}]}]}]}, "/$or/1/$or/1/b/0/prefix", "not_text"),
    ],
)
def test_refusals(policy: Any, position: str, code: str) -> None:
    error = refusal(policy, "body")
    assert (error.position, error.code) == (position, code)


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels > 1 else {"a": [1]}


def alternatives(levels: int) -> Any:
    innermost = {"a": [{"anything-but": {"prefix": ["x"]}}]}
    return {"$or": [{"a": [1]}, alternatives(levels - 1)]} if levels > 1 else innermost


AT_THE_LIMIT: list[tuple[str, int, Any, Any]] = [
    ("too_large", limits.FILTER_BYTES_MAX, '{"a": [1%s]}' % (" " * 65526), '{"a": [1%s]}' % (" " * 65527)),
    ("too_many_keys", limits.FILTER_KEYS_MAX, {str(n): [1] for n in range(32)}, {str(n): [1] for n in range(33)}),
    ("too_complex", limits.FILTER_COMBINATIONS_MAX, {"a": [*range(150)]}, {"a": [*range(151)]}),
    ("too_complex", 150, {"a": [*range(15)], "b": [*range(10)]}, {"a": [*range(16)], "b": [*range(10)]}),
    ("too_complex", 150, {"a": {"b": [*range(75)]}}, {"a": {"b": [*range(76)]}}),
    ("too_deep", limits.FILTER_NESTING_MAX, nested(8), nested(9)),
    ("too_deep", limits.FILTER_NESTING_MAX, alternatives(8), alternatives(9)),
    ("text_too_long", limits.FILTER_TEXT_CHARACTERS_MAX, {"a": ["ä" * 1024]}, {"a": ["ä" * 1025]}),
    ("text_too_long", limits.FILTER_TEXT_CHARACTERS_MAX, {"ä" * 1024: [1]}, {"ä" * 1025: [1]}),
    ("text_too_long", 1024, {"a": [{"wildcard": "*" + "a" * 1023}]}, {"a": [{"wildcard": "*" + "a" * 1024}]}),
    ("bad_number", limits.FILTER_NUMBER_CHARACTERS_MAX, {"a": [10**63]}, {"a": [10**64]}),
    (
        "too_many_stars",
        limits.FILTER_STARS_MAX,
        {"a": [{"anything-but": {"wildcard": ["*b*"] * 4}}], "b": [{"wildcard": "a*b*c"}] * 12},
        {"a": [{"anything-but": {"wildcard": ["*b*", "*"] * 4}}], "b": [{"wildcard": "a*b*c"}] * 12},
    ),
]


@pytest.mark.parametrize(("code", "limit", "most", "more"), AT_THE_LIMIT)
def test_limits(code: str, limit: int, most: Any, more: Any) -> None:
    compile_filter(most if isinstance(most, str) else json.dumps(most), "body")
    error = refusal(more, "body")
    assert (error.code, error.limit) == (code, limit)
    assert str(limit) in error.reason
    assert len(str(error)) < 1000


SOURCES = ["aws.cloudwatch", "aws.events", "aws.test", "aws.test2"]


@pytest.mark.parametrize(
    ("policy", "combinations"),
    [
        # Figures that SNS itself refused or took, as recorded in public tests.
        (
            {
                "source": SOURCES,
                "$or": [
                    {"name": [*"abcdef"]},
                    {"type": [*"abcd"], "$or": [{"id": [*"abcd"]}, {"space": [*"abcd"]}]},
                ],
            },
            152,
        ),
        (
            {
                "source": SOURCES[:3],
                "$or": [
                    {"name": [*"abcdef"]},
                    {"type": [*"abcd"], "$or": [{"id": [*"abcd"]}, {"space": [*"abcdefg"]}]},
                ],
            },
            150,
        ),
        (
            {
                "$or": [{"name": [*"abc"]}, {"space": [*"ab"]}],
                "detail": {"scope": [*"ab"], "$or": [{"source": ["a"]}, {"type": [*"abc"]}]},
            },
            160,
        ),
        ({"key_a": {"key_b": {"key_c": [*"abcd"]}}, "key_d": {"key_e": [*"abc"]}, "x": [1, 2, 3]}, 216),
    ],
)
def test_combinations_are_counted_as_sns_counts(policy: Any, combinations: int) -> None:
    if combinations <= limits.FILTER_COMBINATIONS_MAX:
        compile_filter(json.dumps(policy), "body")
    else:
        assert f"combine to {combinations}," in refusal(policy, "body").reason


# --- explanations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "message", "told"),
    [
        ({"a": ["x"], "b": [1, {"prefix": "y"}]}, {"a": "x", "b": 2}, '/b: wanted [1, {"prefix": "y"}], found 2'),
        ({"a": ["x"], "b": [1]}, {"b": 2}, '/a: wanted ["x"], found nothing'),
        ({"a": [{"exists": False}]}, {"a": None}, '/a: wanted [{"exists": false}], found null'),
        ({"a": {"b/c": [1]}}, {"a": {"b/c": "ä"}}, '/a/b~1c: wanted [1], found "ä"'),
        ({"a": {"b": [1]}}, {"a": [{"b": [2, [3]]}, {"b": 4}]}, "/a/b: wanted [1], found [2, [3]]"),
        ({"a": {"b": [1]}}, {"c": 1}, "/a/b: wanted [1], found nothing"),
        ({"a": ["x"]}, {"a": {"b": 1}}, '/a: wanted ["x"], found an object'),
        (
            {"c": [0], "$or": [{"a": [1]}, {"b": [2]}]},
            {"a": 2, "b": 1, "c": 0},
            "/$or: wanted one of 2 alternatives, found none; /$or/0/a: wanted [1], found 2",
        ),
        (
            {"a": [1]},
            b"[1]",
            "the message: wanted a body that is one JSON object of moderate size and depth, found some",
        ),
    ],
)
def test_explanations(policy: Any, message: Any, told: str) -> None:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    assert str(compile_filter(json.dumps(policy), "body").explain(body_fields(body))).startswith(told)


def test_explanations_are_short() -> None:
    miss = compile_filter(json.dumps({"a": ["x" * 1000] * 60}), "body").explain({"a": [["y" * 100_000] * 100] * 100})
    assert miss is not None
    assert len(miss.wanted) <= 200
    assert len(miss.found) <= 200


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_filter_looks_at_so_many_elements_and_no_more() -> None:
    fits, more = ({"a": [0] * count} for count in (limits.FILTER_STEPS_MAX // 2, limits.FILTER_STEPS_MAX // 2 + 1))
    compiled = compile_filter('{"a": [{"numeric": ["<", 1]}]}', "body")
    assert compiled.matches(fits)
    assert not compiled.matches(more)
    miss = compiled.explain(more)
    assert miss is not None
    assert "100000 steps" in miss.wanted
    through_alternatives = compile_filter(json.dumps({"$or": [{"a": [n]} for n in range(1, 6)]}), "body")
    assert through_alternatives.explain({"a": [0] * 20_000}) is not None
    assert not through_alternatives.matches({"a": [0] * 20_001})


@pytest.mark.parametrize(
    ("condition", "cost"),
    [
        ("x", 1),
        ({"numeric": ["<", 1]}, 2),
        ({"anything-but": {"wildcard": ["*b*"] * 8}}, 27),
        ({"anything-but": {"prefix": ["b"] * 800}}, 103),
    ],
)
def test_conditions_cost_what_they_take(condition: Any, cost: int) -> None:
    compiled = compile_filter(json.dumps({"a": [condition, "a"]}))
    most = limits.FILTER_STEPS_MAX // cost
    assert compiled.matches({"a": ["a"] * most})
    assert not compiled.matches({"a": ["a"] * (most + 1)})


def costly() -> list[tuple[str, Filter, bytes]]:
    """Filters and bodies that try to cost as much as they can."""
    wildcards = [{"wildcard": f"*{'a' * 49}b{'a' * 49}{n}*"} for n in range(limits.FILTER_STARS_MAX // 2)]
    prefixes = [{"prefix": "a" * n} for n in range(20, 170)]
    butts = [{"anything-but": {"prefix": ["a" * n for n in range(1, 300)]}}]
    ranges = [{"numeric": ["=", n]} for n in range(1, 151)]
    deep: Any = [1]
    for _ in range(7):
        deep = {"a": deep}
    texts = b'{"a": [%b]}' % b",".join([b'"%b"' % (b"a" * 29_000)] * 9)
    array = b'{"a": [%b]}' % b",".join([b"0"] * 131_000)
    objects = b'{"a": ' * 7 + b"[" + b",".join([b'{"a":0}'] * 32_000) + b"]" + b"}" * 7
    return [
        ("wildcards", compile_filter(json.dumps({"a": wildcards}), "body"), texts),
        (
            "prefixes",
            compile_filter(json.dumps({"a": prefixes}), "body"),
            b'{"a": ["%b"]}' % b'","'.join([b"a" * 19] * 9000),
        ),
        (
            "anything-but",
            compile_filter(json.dumps({"a": butts}), "body"),
            b'{"a": ["%b"]}' % b'","'.join([b"a" * 300] * 800),
        ),
        ("ranges", compile_filter(json.dumps({"a": ranges}), "body"), b'{"a": [%b]}' % b",".join([b"0"] * 660)),
        ("array", compile_filter('{"a": [1]}', "body"), array),
        ("objects", compile_filter(json.dumps(deep), "body"), objects),
        (
            "digits",
            compile_filter(json.dumps({"a": ranges}), "body"),
            b'{"a": [%b]}' % b",".join([b"9" * 600 + b".5"] * 400),
        ),
        ("quotes", compile_filter('{"a": [1]}', "body"), b'{"a": "' + b'\\"' * 131_000),
        ("brackets", compile_filter('{"a": [1]}', "body"), b'{"a": ' + b"[]," * 87_000),
    ]


CALLS_MAX = 5 * limits.FILTER_STEPS_MAX
"""The dearest step, a range put to a number, calls four functions."""


@pytest.mark.parametrize(
    ("name", "compiled", "body"), costly(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_worst_is_bounded(name: str, compiled: Filter, body: bytes) -> None:
    assert len(body) <= limits.FILTER_BODY_BYTES_MAX
    assert calls(lambda: compiled.matches(body_fields(body))) < CALLS_MAX
    compiled.explain(body_fields(body))


def test_numbers_of_attributes_are_those_that_were_written() -> None:
    assert wants('{"a": [0.1]}', {"a": 0.1})
    assert wants('{"a": [1e23]}', {"a": 1e23})
    assert not wants('{"a": [0.3]}', {"a": 0.1 + 0.2})
    assert wants('{"a": [18446744073709551615]}', {"a": 2**64 - 1})
    assert compile_filter('{"a": [0.3]}').matches({"a": Decimal("0.30")})
    assert not compile_filter('{"a": [{"numeric": ["<", 1]}]}').matches({"a": float("nan")})
