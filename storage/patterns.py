"""Patterns of routing keys, as in AMQP's topics.

A key is words with dots between them; the empty key has none. A pattern is words too, of which `*` stands for exactly
one word and `#` for any number of them, also none. A pattern without either is one key, `#` alone is every key.

    orders.*.paid    orders.de.paid                      not orders.paid, not orders.de.eu.paid
    orders.#         orders, orders.de, orders.de.paid   not reorders

Both ways of matching walk through the key once, keeping all the places in the pattern where it could stand: nothing is
tried twice, whatever the pattern.
"""

from __future__ import annotations

from storage.limits import ROUTING_CHARACTERS_MAX, ROUTING_WORDS_MAX

ONE, ANY = "*", "#"


class PatternError(Exception):
    """A pattern or key that cannot be: `position` is the character where it goes wrong, `limit` what it breaks."""

    def __init__(self, position: int, reason: str, limit: int | None = None) -> None:
        super().__init__(f"character {position}: {reason}")
        self.position = position
        self.reason = reason
        self.limit = limit


def words_of_key(key: str) -> list[str]:
    """The words of a routing key, checked. Raises `PatternError`."""
    if len(key) > ROUTING_CHARACTERS_MAX:
        detail = f"{len(key)} characters, at most {ROUTING_CHARACTERS_MAX} are allowed"
        raise PatternError(ROUTING_CHARACTERS_MAX, detail, ROUTING_CHARACTERS_MAX)
    words = _words(key)
    position = 0
    for number, word in enumerate(words):
        if number == ROUTING_WORDS_MAX:
            detail = f"{len(words)} words, at most {ROUTING_WORDS_MAX} are allowed"
            raise PatternError(position, detail, ROUTING_WORDS_MAX)
        if not word:
            raise PatternError(position, "a word is missing before or after a dot")
        for at, character in enumerate(word):
            if character < " " or "\x7f" <= character < "\xa0":
                raise PatternError(position + at, "control characters are not allowed")
        position += len(word) + 1
    return words


def words_of_pattern(pattern: str) -> list[str]:
    """The words of a pattern, checked. Raises `PatternError`."""
    position = 0
    words = words_of_key(pattern)
    for word in words:
        for at, character in enumerate(word):
            if character in (ONE, ANY) and len(word) > 1:
                raise PatternError(position + at, f"{character} stands for whole words, alone between dots")
        position += len(word) + 1
    return words


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


class Pattern:
    """A compiled pattern.

    Its words but for `#` are steps; a key stands before a step, or after the last. Bit n of `places` says that it could
    stand before step n: a word moves on those whose step takes it, and leaves those where a `#` stands.
    """

    def __init__(self, pattern: str) -> None:
        """Compile a pattern. Raises `PatternError`."""
        steps = 0
        self._stay = 0
        self._all_take = 0
        self._take: dict[str, int] = {}
        for word in words_of_pattern(pattern):
            if word == ANY:
                self._stay |= 1 << steps
                continue
            if word == ONE:
                self._all_take |= 1 << steps
            else:
                self._take[word] = self._take.get(word, 0) | 1 << steps
            steps += 1
        self._end = 1 << steps

    def matches(self, key: str) -> bool:
        """Whether a routing key, checked before, fits."""
        take, all_take, stay = self._take, self._all_take, self._stay
        places = 1
        for word in _words(key):
            places = (places & (take.get(word, 0) | all_take)) << 1 | (places & stay)
            if not places:
                return False
        return bool(places & self._end)


class _Node:
    """A place in the tree of all patterns: whose end here, and by which words it goes on. After `#` it also stays."""

    __slots__ = ("ends", "next", "stays")

    def __init__(self, word: str = "") -> None:
        self.stays = word == ANY
        self.next: dict[str, _Node] = {}
        self.ends: set[str] = set()


class PatternIndex:
    """Many patterns, each of someone with a name, matched together: those that do not fit cost next to nothing."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, pattern: str, name: str) -> None:
        """Add a pattern of `name`. Raises `PatternError`."""
        node = self._root
        for word in words_of_pattern(pattern):
            node = node.next.setdefault(word, _Node(word))
        node.ends.add(name)

    def remove(self, pattern: str, name: str) -> None:
        """Take out a pattern of `name`, which was added before."""
        path = [self._root]
        words = words_of_pattern(pattern)
        for word in words:
            path.append(path[-1].next[word])
        path[-1].ends.remove(name)
        for node, word in zip(reversed(path[:-1]), reversed(words), strict=True):
            child = node.next[word]
            if child.next or child.ends:
                return
            del node.next[word]

    def match(self, key: str) -> list[str]:
        """The names that have a pattern which the routing key, checked before, fits: in order, each once."""
        places: set[_Node] = set()
        _stand(self._root, places)
        for word in _words(key):
            after: set[_Node] = set()
            for node in places:
                if node.stays:
                    _stand(node, after)
                if (child := node.next.get(word)) is not None:
                    _stand(child, after)
                if (child := node.next.get(ONE)) is not None:
                    _stand(child, after)
            places = after
        return sorted(set().union(*(node.ends for node in places)))


def _stand(node: _Node | None, places: set[_Node]) -> None:
    """Stand at a node, and where any number of words, perhaps none, leads from it."""
    while node is not None:
        places.add(node)
        node = node.next.get(ANY)
