"""Filters: which messages a subscription or a consumer wants. The policy language of SNS and EventBridge.

A filter is a JSON object. It matches if every key of it does; a key matches if any of its conditions does, on any
element if the message has an array there; `$or` matches if any of its alternatives does. Within bodies, objects nest:
what stands in one object of the filter must hold for one object of the message, if there is an array of them.
docs/filters.md is the whole language, with examples that are run as tests.

    {"kind": ["order", {"prefix": "refund."}], "total": [{"numeric": [">=", 100]}], "test": [{"exists": false}]}

A filter is compiled once. Matching is a pure function of its text and the message's bytes, with bounded work, because
every replica does it on its own: no clock, no locale, no regular expressions of strangers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

from storage.block import Part
from storage.conditions import (
    OPERATORS,
    BadNumber,
    Conditions,
    FilterError,
    Members,
    checked_text,
    pointed,
    read_conditions,
)
from storage.fields import Fields, attribute_fields, body_fields, nesting, number, without_texts
from storage.limits import (
    FILTER_BYTES_MAX,
    FILTER_COMBINATIONS_MAX,
    FILTER_KEYS_MAX,
    FILTER_NESTING_MAX,
    FILTER_NUMBER_CHARACTERS_MAX,
    FILTER_STARS_MAX,
    FILTER_STEPS_MAX,
)

On = Literal["attributes", "body"]

OR = "$or"
_JSON_NESTING_MAX = 2 * FILTER_NESTING_MAX + 4
"""Brackets within brackets in a filter's JSON, before it is parsed: alternatives have two, conditions some more."""
_EXPLANATION_STEPS_MAX = (FILTER_NESTING_MAX + 2) * FILTER_STEPS_MAX
"""What an explanation may cost: it looks once more at each level."""
_SHOWN_CHARACTERS_MAX = 200
"""Characters of a condition or a value that an explanation repeats."""
_MISSING = object()


class Miss(NamedTuple):
    """Why a filter does not match: the key at `position`, a JSON pointer, `wanted` something else than was `found`."""

    position: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.position or 'the message'}: wanted {self.wanted}, found {self.found}"


class Filter:
    """A compiled filter."""

    def __init__(self, on: On, check: _Check) -> None:
        self.on = on
        self._check = check

    def fields(self, part: Part) -> Fields | None:
        """What this filter looks at in a message; None if its body cannot be read. The same for all filters `on` it."""
        return attribute_fields(part.properties) if self.on == "attributes" else body_fields(part.body)

    def matches(self, fields: Fields | None) -> bool:
        """Whether the message with these fields is wanted."""
        if fields is None:
            return False
        try:
            return self._check.holds(fields, _Work())
        except _TooMuchWork:
            return False

    def explain(self, fields: Fields | None) -> Miss | None:
        """The first key that does not match, or None if the filter matches."""
        if fields is None:
            return Miss("", "a body that is one JSON object of moderate size and depth", "something else")
        try:
            if self._check.holds(fields, _Work()):
                return None
            return self._check.miss(fields, _Work(_EXPLANATION_STEPS_MAX))
        except _TooMuchWork:
            return Miss("", f"at most {FILTER_STEPS_MAX} steps to look through its arrays", "more")


class _TooMuchWork(Exception):
    pass


class _Work:
    """What a match may still cost."""

    __slots__ = ("_left",)

    def __init__(self, steps_max: int = FILTER_STEPS_MAX) -> None:
        self._left = steps_max

    def elements(self, array: list[Any], cost: int) -> list[Any]:
        """The elements of an array and of arrays in it, in order; each is paid for."""
        elements = []
        pending = [array]
        while pending:
            item = pending.pop()
            if type(item) is list:
                self._left -= len(item) * cost
                if self._left < 0:
                    raise _TooMuchWork
                pending.extend(reversed(item))
            else:
                elements.append(item)
        return elements


class _Check(Protocol):
    """A part of a filter. `cost` bounds how many conditions it puts to one object."""

    cost: int

    def holds(self, fields: Fields, work: _Work) -> bool:
        """Whether it holds for an object."""

    def miss(self, fields: Fields, work: _Work) -> Miss | None:
        """What does not hold, or None."""


class _Key:
    """A key with conditions. An object is no value; an array is its elements."""

    def __init__(self, key: str, conditions: Conditions, position: str, wanted: str) -> None:
        self._key = key
        self._test, self._absent, self.cost = conditions.test, conditions.absent, conditions.cost
        self._position = position
        self._wanted = wanted

    def holds(self, fields: Fields, work: _Work) -> bool:
        value = fields.get(self._key, _MISSING)
        if type(value) is list:
            values = [element for element in work.elements(value, self.cost) if type(element) is not dict]
            return any(map(self._test, values)) if values else self._absent
        if value is _MISSING or type(value) is dict:
            return self._absent
        return self._test(value)

    def miss(self, fields: Fields, work: _Work) -> Miss | None:
        if self.holds(fields, work):
            return None
        return Miss(self._position, self._wanted, shown(fields[self._key]) if self._key in fields else "nothing")


class _Object:
    """A key whose fields are checked: of one object there, any of an array, or of none, which then has no fields."""

    def __init__(self, key: str, check: _Check) -> None:
        self._key = key
        self._check = check
        self.cost = check.cost

    def _objects(self, fields: Fields, work: _Work) -> Sequence[Fields]:
        value = fields.get(self._key)
        if type(value) is dict:
            return (value,)
        if type(value) is list:
            objects = [element for element in work.elements(value, self.cost) if type(element) is dict]
            return objects or ({},)
        return ({},)

    def holds(self, fields: Fields, work: _Work) -> bool:
        for found in self._objects(fields, work):  # noqa: SIM110  a generator takes twice as long
            if self._check.holds(found, work):
                return True
        return False

    def miss(self, fields: Fields, work: _Work) -> Miss | None:
        objects = self._objects(fields, work)
        if any(self._check.holds(found, work) for found in objects):
            return None
        return self._check.miss(objects[0], work)


class _AllOf:
    """Everything in an object of the filter."""

    def __init__(self, checks: list[_Check]) -> None:
        self._checks = tuple(checks)
        self.cost = sum(check.cost for check in checks)

    def holds(self, fields: Fields, work: _Work) -> bool:
        for check in self._checks:  # noqa: SIM110  a generator takes twice as long
            if not check.holds(fields, work):
                return False
        return True

    def miss(self, fields: Fields, work: _Work) -> Miss | None:
        misses = (check.miss(fields, work) for check in self._checks)
        return next((miss for miss in misses if miss is not None), None)


class _AnyOf:
    """The alternatives of a `$or`."""

    def __init__(self, checks: list[_Check], position: str) -> None:
        self._checks = tuple(checks)
        self._position = position
        self.cost = sum(check.cost for check in checks)

    def holds(self, fields: Fields, work: _Work) -> bool:
        for check in self._checks:  # noqa: SIM110  a generator takes twice as long
            if check.holds(fields, work):
                return True
        return False

    def miss(self, fields: Fields, work: _Work) -> Miss | None:
        misses = [check.miss(fields, work) for check in self._checks]
        if None in misses:
            return None
        return Miss(self._position, f"one of {len(misses)} alternatives", f"none; {misses[0]}")


# --- compiling --------------------------------------------------------------------------------------------------------


def compile_filter(policy: bytes | str, on: On = "attributes") -> Filter:
    """The filter that the JSON text says. Raises `FilterError`, and nothing else, whatever the text."""
    compiler = _Compiler(on)
    members = _parsed(policy)
    check, combinations = compiler.all_of(members, "", 1, 1)
    if combinations > FILTER_COMBINATIONS_MAX:
        detail = f"the conditions combine to {combinations}, at most {FILTER_COMBINATIONS_MAX} are allowed"
        raise FilterError("", "too_complex", detail, FILTER_COMBINATIONS_MAX)
    return Filter(on, check)


class _Compiler:
    """Counts keys and stars while it compiles."""

    def __init__(self, on: On) -> None:
        self._on = on
        self._keys = 0
        self._stars = 0

    def all_of(self, members: Any, position: str, nested: int, level: int) -> tuple[_Check, int]:
        """Compile one object; also how many combinations it has.

        Counted as SNS counts: the numbers of conditions of all keys are multiplied, each times its level of nesting;
        alternatives are added up. `nested` counts alternatives as levels too.
        """
        if type(members) is not Members:
            raise FilterError(position, "not_an_object", "an object of keys is needed here")
        if not members:
            raise FilterError(position, "empty_object", "an empty object asks for nothing; leave it out")
        if nested > FILTER_NESTING_MAX:
            detail = f"objects stand within each other at most {FILTER_NESTING_MAX} deep"
            raise FilterError(position, "too_deep", detail, FILTER_NESTING_MAX)
        checks: list[_Check] = []
        combinations = 1
        seen: set[str] = set()
        for key, value in members:
            at = f"{position}/{pointed(key)}"
            checked_text(key, at)
            if key in seen:
                raise FilterError(at, "repeated_key", "the key stands twice; put its conditions into one list")
            seen.add(key)
            check, count = self._member(key, value, at, nested, level)
            checks.append(check)
            combinations *= count
        return (checks[0] if len(checks) == 1 else _AllOf(checks)), combinations

    def _member(self, key: str, value: Any, at: str, nested: int, level: int) -> tuple[_Check, int]:
        if key == OR:
            return self._any_of(value, at, nested, level)
        if type(value) is Members:
            if self._on == "attributes":
                raise FilterError(at, "nested", "attributes have no fields; give a list of conditions")
            check, combinations = self.all_of(value, at, nested + 1, level + 1)
            return _Object(key, check), combinations
        if type(value) is not list:
            raise FilterError(at, "not_a_list", "a list of conditions is needed here")
        conditions = read_conditions(value, at)
        self._count(conditions, at)
        return _Key(key, conditions, at, shown(value)), conditions.size * level

    def _any_of(self, value: Any, at: str, nested: int, level: int) -> tuple[_Check, int]:
        if type(value) is not list or len(value) < 2:
            raise FilterError(at, "bad_or", f"{OR} takes a list of two or more objects")
        checks: list[_Check] = []
        combinations = 0
        for at_number, alternative in enumerate(value):
            place = f"{at}/{at_number}"
            if type(alternative) is Members and any(key in OPERATORS for key, _ in alternative):
                raise FilterError(place, "bad_or", f"the keys of {OR} are not named as operators: SNS would misread it")
            check, count = self.all_of(alternative, place, nested + 1, level)
            checks.append(check)
            combinations += count
        return _AnyOf(checks, at), combinations

    def _count(self, conditions: Conditions, at: str) -> None:
        self._keys += 1
        if self._keys > FILTER_KEYS_MAX:
            raise FilterError(at, "too_many_keys", f"at most {FILTER_KEYS_MAX} keys are allowed", FILTER_KEYS_MAX)
        self._stars += conditions.stars
        if self._stars > FILTER_STARS_MAX:
            detail = f"the wildcards of a filter have at most {FILTER_STARS_MAX} stars"
            raise FilterError(at, "too_many_stars", detail, FILTER_STARS_MAX)


def _parsed(policy: bytes | str) -> Any:
    """The JSON as lists, `Members`, texts, exact numbers and constants."""
    try:
        data = policy if isinstance(policy, bytes) else policy.encode()
        text = data.decode()
    except UnicodeError:
        raise FilterError("", "not_json", "the filter is not UTF-8") from None
    if len(data) > FILTER_BYTES_MAX:
        detail = f"the filter has {len(data)} bytes, at most {FILTER_BYTES_MAX} are allowed"
        raise FilterError("", "too_large", detail, FILTER_BYTES_MAX)
    if nesting(without_texts(data)) > _JSON_NESTING_MAX:
        detail = f"objects stand within each other at most {FILTER_NESTING_MAX} deep"
        raise FilterError("", "too_deep", detail, FILTER_NESTING_MAX)
    try:
        return json.loads(
            text, object_pairs_hook=Members, parse_int=_number, parse_float=_number, parse_constant=BadNumber
        )
    except ValueError as error:
        raise FilterError("", "not_json", f"the filter is not JSON: {error}") from None


def _number(text: str) -> Any:
    found = number(text) if len(text) <= FILTER_NUMBER_CHARACTERS_MAX else None
    return BadNumber(text) if found is None else found


def shown(value: Any) -> str:
    """A condition or a value as JSON, cut to a length that is read."""
    if type(value) is list and not isinstance(value, Members):
        text = f"[{', '.join(map(shown, value[:10]))}{', …' if len(value) > 10 else ''}]"
    elif isinstance(value, Members):
        text = f"{{{', '.join(f'{json.dumps(key)}: {shown(item)}' for key, item in value)}}}"
    elif type(value) is dict:
        text = "an object"
    elif type(value) is str:
        text = json.dumps(value[:_SHOWN_CHARACTERS_MAX], ensure_ascii=False)
    elif value is None or type(value) is bool:
        text = json.dumps(value)
    else:
        text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[: _SHOWN_CHARACTERS_MAX - 1] + "…"
