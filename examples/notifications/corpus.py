"""Real sentences for many users: what Python's own documentation says, in the company of the characters of Unicode."""

from __future__ import annotations

import ast
import functools
import itertools
import random
import re
import sys
import sysconfig
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

USERS = (
    "zoë",
    "Łukasz",
    "Σωκράτης",
    "Наталья",
    "יוסי",
    "سارة",
    "अनिल",
    "小林",
    "민준",
    "Ẹ̀bùn",
    "O'Brien",
    "👩‍🚀",
    "bob",
)
MODULES_MAX = 200


@functools.cache
def sentences() -> list[str]:
    """The sentences of the language reference and of the standard library's docstrings, each once."""
    texts = itertools.chain(topics.values(), _docstrings())
    found = (" ".join(part.split()) for text in texts for part in re.split(r"(?<=[.!?])\s+|\n\s*\n", text))
    return list(dict.fromkeys(sentence for sentence in found if len(sentence) > 20))


def _docstrings() -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob("*.py"))[:MODULES_MAX]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""


def characters() -> Iterator[str]:
    """Every named character with its name, in the order of Unicode, for ever."""
    named = (chr(code) for code in range(0x20, sys.maxunicode) if unicodedata.name(chr(code), ""))
    return itertools.cycle(f"{mark} {unicodedata.name(mark).lower()}" for mark in named)


def notifications(count: int, seed: int = 1, prefix: str = "n") -> Iterator[dict[str, str]]:
    """`count` notifications, the same for the same seed and prefix; of quite different lengths."""
    chance, known, marks = random.Random(seed), sentences(), characters()
    for number in range(count):
        said = chance.choices(known, k=1 + min(7, int(chance.expovariate(1))))
        user = f"{chance.choice(USERS)}-{chance.randrange(10_000)}"
        yield {"id": f"{prefix}-{number:08}", "user": user, "text": f"{next(marks)}: {' '.join(said)}"}
