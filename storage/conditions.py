"""One key's conditions in a filter: read from JSON, checked, and compiled to one test on one value.

    conditions = [condition, …]                        any of them
    condition  = text | number | true | false | null   the value itself
               | {"exists": true | false}
               | {"prefix": text}  {"suffix": text}    or {"equals-ignore-case": text} instead of the text
               | {"equals-ignore-case": text}
               | {"wildcard": text}                    * is any text, \\* a star, \\\\ a backslash
               | {"numeric": [">", 0, "<=", 150]}      =, or one or both of > >= and < <=
               | {"cidr": "10.0.0.0/24"}
               | {"anything-but": values or pattern}   a value, a list of values, or {prefix, suffix, wildcard or
                                                       equals-ignore-case: text or a list of texts}

A test answers for one value that is there; `exists: false` is the business of who looks for the key. Letters are
ASCII, Latin, Greek and Cyrillic where case does not matter, by a table of our own: Python's tables change with its
version, and replicas must agree.
"""

from __future__ import annotations

import ipaddress
import operator
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, NamedTuple

from storage.fields import exact
from storage.limits import FILTER_NUMBER_CHARACTERS_MAX, FILTER_TEXT_CHARACTERS_MAX

Test = Callable[[Any], bool]
Number = int | Decimal

OPERATORS = frozenset(
    {"anything-but", "cidr", "equals-ignore-case", "exists", "numeric", "prefix", "suffix", "wildcard"}
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_AFFIXES_A_STEP = 8
"""Prefixes or suffixes that are compared in the time of one other step."""
_POINTED_CHARACTERS_MAX = 256
"""Characters of a key in a position: where a longer one stands is told by its beginning."""
_ADDRESS_CHARACTERS_MAX = 45
"""The longest address: IPv6 that ends in IPv4."""


class FilterError(Exception):
    """A filter that cannot be.

    `position` is where, as a JSON pointer into the filter; `code` one word for `reason`; `limit` the number it breaks.
    """

    def __init__(self, position: str, code: str, reason: str, limit: int | None = None) -> None:
        super().__init__(f"{position or 'the filter'}: {reason}")
        self.position = position
        self.code = code
        self.reason = reason
        self.limit = limit


class Members(list[tuple[str, Any]]):
    """A JSON object as it was written: keys that stand twice are still seen."""


class BadNumber(NamedTuple):
    """A number too long to be read, or none at all (NaN, Infinity)."""

    text: str


class Conditions(NamedTuple):
    """What a key's conditions compile to.

    `test` answers for a value that is there; `absent` says whether it may be missing. `size` is how many conditions
    there are, `cost` about how many steps a test takes, and `stars` how many stars the wildcards have.
    """

    test: Test
    absent: bool
    size: int
    cost: int
    stars: int


def read_conditions(conditions: list[Any], position: str) -> Conditions:
    """Compile the conditions at `position`. Raises `FilterError`."""
    if not conditions:
        raise FilterError(position, "empty_array", "an empty list matches nothing; list what is wanted")
    builder = _Builder()
    for number, condition in enumerate(conditions):
        builder.add(condition, f"{position}/{number}")
    return Conditions(builder.build(), builder.absent, len(conditions), builder.cost, builder.stars)


class _Builder:
    """Gathers alternatives, so that many of a kind cost little more than one."""

    def __init__(self) -> None:
        self.absent = False
        self.cost = 1
        self.stars = 0
        self._any = False
        self._texts: set[str] = set()
        self._numbers: set[Number] = set()
        self._constants: list[bool | None] = []
        self._prefixes: list[str] = []
        self._suffixes: list[str] = []
        self._folded: set[str] = set()
        self._tests: list[Test] = []

    def add(self, condition: Any, position: str) -> None:
        """One more alternative."""
        if type(condition) is not Members:
            self._value(condition, position)
            return
        name, argument = _single(condition, position)
        position = f"{position}/{pointed(name)}"
        match name:
            case "exists":
                self._exists(argument, position)
            case "anything-but":
                self._anything_but(argument, position)
            case "numeric":
                self._tests.append(_numeric(argument, position))
            case "cidr":
                self._tests.append(_cidr(argument, position))
            case "prefix" | "suffix" if type(argument) is Members:
                self._affix_ignoring_case(name, argument, position)
            case _:
                self._pattern(name, argument, position)

    def build(self) -> Test:
        """One test for all. Fills in `cost`."""
        tests = list(self._tests)
        self.cost += len(tests) + (len(self._prefixes) + len(self._suffixes)) // _AFFIXES_A_STEP
        if self._texts:
            tests.insert(0, frozenset(self._texts).__contains__)
        if self._numbers:
            tests.append(_one_of_numbers(frozenset(self._numbers)))
        if self._constants:
            tests.append(_one_of_constants(self._constants))
        if self._prefixes:
            tests.append(_starts(tuple(self._prefixes)))
        if self._suffixes:
            tests.append(_ends(tuple(self._suffixes)))
        if self._folded:
            tests.append(_equals_folded(frozenset(self._folded)))
        if self._any:
            tests = [lambda _: True]
        return tests[0] if len(tests) == 1 else _any_of(tuple(tests))

    def _value(self, value: Any, position: str) -> None:
        if type(value) is str:
            self._texts.add(checked_text(value, position))
        elif value is None or type(value) is bool:
            self._constants.append(value)
        else:
            self._numbers.add(_number(value, position))

    def _exists(self, wanted: Any, position: str) -> None:
        if type(wanted) is not bool:
            raise FilterError(position, "not_boolean", "exists takes true or false")
        self._any |= wanted
        self.absent |= not wanted

    def _pattern(self, name: str, argument: Any, position: str) -> None:
        text = checked_text(argument, position)
        match name:
            case "prefix":
                self._prefixes.append(text)
            case "suffix":
                self._suffixes.append(text)
            case "equals-ignore-case":
                self._folded.add(fold(text))
            case "wildcard":
                parts = _parts(text, position)
                self.stars += len(parts) - 1
                self.cost += len(parts) - 1
                self._tests.append(_wildcard(parts))
            case _:
                known = ", ".join(sorted(OPERATORS))
                raise FilterError(position, "unknown_operator", f"there is no such operator; there are {known}")

    def _affix_ignoring_case(self, name: str, argument: Members, position: str) -> None:
        inner, text = _single(argument, position)
        position = f"{position}/{pointed(inner)}"
        if inner != "equals-ignore-case":
            raise FilterError(position, "unknown_operator", f"{name} takes a text, or equals-ignore-case and a text")
        affix = fold(checked_text(text, position))
        self._tests.append(_starts_folded(affix) if name == "prefix" else _ends_folded(affix))

    def _anything_but(self, argument: Any, position: str) -> None:
        unwanted = _Builder()
        if type(argument) is Members:
            name, patterns = _single(argument, position)
            position = f"{position}/{pointed(name)}"
            if name not in ("prefix", "suffix", "wildcard", "equals-ignore-case"):
                detail = "anything-but takes values, prefix, suffix, wildcard or equals-ignore-case"
                raise FilterError(position, "unknown_operator", detail)
            for pattern, at in _listed(patterns, position):
                unwanted._pattern(name, pattern, at)
        else:
            for value, at in _listed(argument, position):
                unwanted._value(value, at)
        test = unwanted.build()
        self.cost += unwanted.cost
        self.stars += unwanted.stars
        self._tests.append(lambda value: not test(value))


# --- reading ----------------------------------------------------------------------------------------------------------


def checked_text(value: Any, position: str) -> str:
    """A text of a filter, within its limit. Raises `FilterError`."""
    if type(value) is not str:
        raise FilterError(position, "not_text", "a text is needed here")
    if len(value) > FILTER_TEXT_CHARACTERS_MAX:
        detail = f"a text of {len(value)} characters, at most {FILTER_TEXT_CHARACTERS_MAX} are allowed"
        raise FilterError(position, "text_too_long", detail, FILTER_TEXT_CHARACTERS_MAX)
    if not value.isascii() and _in_unicode(value) != value:
        raise FilterError(position, "not_text", "half a surrogate pair is no character")
    return value


def pointed(key: str) -> str:
    """A key as a part of a JSON pointer."""
    return _in_unicode(key[:_POINTED_CHARACTERS_MAX].replace("~", "~0").replace("/", "~1"))


def _in_unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _single(members: Members, position: str) -> tuple[str, Any]:
    if len(members) != 1:
        raise FilterError(position, "not_one_operator", "a condition has exactly one operator")
    return members[0]


def _listed(argument: Any, position: str) -> Iterable[tuple[Any, str]]:
    if type(argument) is not list:
        return [(argument, position)]
    if not argument:
        raise FilterError(position, "empty_array", "an empty list excludes nothing; list what is not wanted")
    return [(item, f"{position}/{number}") for number, item in enumerate(argument)]


def _number(value: Any, position: str) -> Number:
    if type(value) is BadNumber:
        detail = f"a number has at most {FILTER_NUMBER_CHARACTERS_MAX} characters and four digits of exponent"
        raise FilterError(position, "bad_number", detail, FILTER_NUMBER_CHARACTERS_MAX)
    found = exact(value)
    if found is None:
        raise FilterError(position, "not_a_value", "a text, a number, true, false, null or an operator is needed here")
    return found


def _numeric(argument: Any, position: str) -> Test:
    if type(argument) is not list or len(argument) not in (2, 4):
        raise FilterError(position, "bad_range", 'numeric takes ["=", 5], [">", 5] or [">", 5, "<=", 8]')
    bounds: list[tuple[Callable[[Any, Any], bool], Number]] = []
    for at in range(0, len(argument), 2):
        sign, limit = argument[at], argument[at + 1]
        allowed = ("<", "<=") if at else ("=", ">", ">=", "<", "<=") if len(argument) == 2 else (">", ">=")
        if sign not in allowed:
            raise FilterError(f"{position}/{at}", "bad_range", f"one of {' '.join(allowed)} is needed here")
        if exact(limit) is None and type(limit) is not BadNumber:
            raise FilterError(f"{position}/{at + 1}", "not_a_number", "a number is needed here")
        bounds.append((_COMPARISONS[sign], _number(limit, f"{position}/{at + 1}")))
    if len(bounds) == 2 and bounds[0][1] >= bounds[1][1]:
        raise FilterError(f"{position}/3", "empty_range", "the upper bound must be above the lower one")
    return _within(bounds)


def _cidr(argument: Any, position: str) -> Test:
    text = checked_text(argument, position)
    address_text, slash, mask = text.partition("/")
    address = _address(address_text)
    if address is None or not slash:
        raise FilterError(position, "bad_cidr", "a network is needed here, as 10.0.0.0/8 or 2001:db8::/32")
    bits = 32 if address[0] == 4 else 128
    if not (mask.isascii() and mask.isdecimal() and len(mask) <= 3 and int(mask) <= bits):
        raise FilterError(position, "bad_cidr", f"the mask is a number from 0 to {bits}", bits)
    return _inside(address, bits - int(mask))


def _address(text: str) -> tuple[int, int] | None:
    """IP version and address as a number, or None if the text is no address."""
    if len(text) > _ADDRESS_CHARACTERS_MAX or "%" in text:
        return None
    try:
        if ":" in text:
            return 6, int(ipaddress.IPv6Address(text))
        return 4, int(ipaddress.IPv4Address(text))
    except ValueError:
        return None


# --- tests ------------------------------------------------------------------------------------------------------------


def _any_of(tests: tuple[Test, ...]) -> Test:
    def test(value: Any) -> bool:
        for one in tests:  # noqa: SIM110  a generator takes twice as long
            if one(value):
                return True
        return False

    return test


def _one_of_numbers(numbers: frozenset[Number]) -> Test:
    def test(value: Any) -> bool:
        found = exact(value)
        return found is not None and found in numbers

    return test


def _one_of_constants(constants: list[bool | None]) -> Test:
    return lambda value: any(value is constant for constant in constants)


def _starts(prefixes: tuple[str, ...]) -> Test:
    return lambda value: type(value) is str and value.startswith(prefixes)


def _ends(suffixes: tuple[str, ...]) -> Test:
    return lambda value: type(value) is str and value.endswith(suffixes)


def _equals_folded(texts: frozenset[str]) -> Test:
    lengths = frozenset(map(len, texts))
    return lambda value: type(value) is str and len(value) in lengths and fold(value) in texts


def _starts_folded(prefix: str) -> Test:
    return lambda value: type(value) is str and fold(value[: len(prefix)]) == prefix


def _ends_folded(suffix: str) -> Test:
    return lambda value: (
        type(value) is str and len(value) >= len(suffix) and fold(value[len(value) - len(suffix) :]) == suffix
    )


def _within(bounds: list[tuple[Callable[[Any, Any], bool], Number]]) -> Test:
    holds, bound = bounds[0]

    def test(value: Any) -> bool:
        found = value if type(value) is int else exact(value)
        return found is not None and holds(found, bound)

    if len(bounds) == 1:
        return test
    holds_too, upper = bounds[1]
    return lambda value: test(value) and holds_too(exact(value), upper)


def _inside(network: tuple[int, int], host_bits: int) -> Test:
    version, start = network[0], network[1] >> host_bits

    def test(value: Any) -> bool:
        address = _address(value) if type(value) is str else None
        return address is not None and address[0] == version and address[1] >> host_bits == start

    return test


def _wildcard(parts: list[str]) -> Test:
    """Texts with stars between them. Each is looked for once, from left to right: no backtracking is needed."""
    first, *rest = parts
    if not rest:
        return lambda value: type(value) is str and value == first
    *middle, last = rest
    characters_min = len(first) + sum(map(len, middle)) + len(last)

    def test(value: Any) -> bool:
        if type(value) is not str or len(value) < characters_min or not value.startswith(first):
            return False
        if not value.endswith(last):
            return False
        at, end = len(first), len(value) - len(last)
        for part in middle:
            found = value.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return test


def _parts(pattern: str, position: str) -> list[str]:
    """The texts between the stars of a pattern."""
    parts, after_star, characters = [""], False, iter(pattern)
    for at, character in enumerate(characters):
        if character == "*":
            if after_star:
                raise FilterError(position, "bad_wildcard", f"two stars in a row say no more than one (character {at})")
            parts.append("")
        elif character == "\\":
            escaped = next(characters, "")
            if escaped not in ("*", "\\"):
                detail = f"a backslash stands before a star or a backslash (character {at})"
                raise FilterError(position, "bad_wildcard", detail)
            parts[-1] += escaped
        else:
            parts[-1] += character
        after_star = character == "*"
    return parts


def _case_table() -> dict[int, int]:
    capitals = {code: code + 32 for code in (*range(0x41, 0x5B), *range(0xC0, 0xDF), *range(0x391, 0x3AC))}
    capitals |= {code: code + 32 for code in range(0x410, 0x430)} | {code: code + 80 for code in range(0x400, 0x410)}
    capitals |= {code: code + 1 for code in (*range(0x100, 0x130, 2), *range(0x132, 0x138, 2), *range(0x139, 0x148, 2))}
    capitals |= {code: code + 1 for code in (*range(0x14A, 0x178, 2), *range(0x179, 0x17E, 2))}
    capitals |= {
        0x178: 0xFF,
        0x386: 0x3AC,
        0x388: 0x3AD,
        0x389: 0x3AE,
        0x38A: 0x3AF,
        0x38C: 0x3CC,
        0x38E: 0x3CD,
        0x38F: 0x3CE,
    }
    del capitals[0xD7], capitals[0x3A2]  # the multiplication sign, and a code that is no letter
    return capitals


_SMALL_OF = _case_table()


def fold(text: str) -> str:
    """The text with capitals made small, letter by letter: as long as before."""
    return text.lower() if text.isascii() else text.translate(_SMALL_OF)
