"""What all commands share: exit codes, the ways to fail, common flags, and how to speak to people and to programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Annotated, Any

from cyclopts import Parameter

DEFAULT_URL = "http://127.0.0.1:7700"

Url = Annotated[
    str,
    Parameter(env_var="TRIMARAN_URL", help="A node, or several, comma-separated: each is tried until one answers."),
]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON, for programs.")]


class Exit(IntEnum):
    """How a command ends, for scripts."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOTHING_RECEIVED = 3
    UNAVAILABLE = 4
    INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot go on: the message says why in a line or two, `code` is the exit code."""

    code = Exit.FAILED


class UsageError(CommandError):
    """What was asked for makes no sense; nothing was done."""

    code = Exit.USAGE


def say(text: str = "") -> None:
    """Print a line for whoever ran the command."""
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    """Print a line beside the output: progress, warnings, errors."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say_json(value: Any) -> None:
    """Print one JSON document on one line. Characters are printed as they are, whatever the locale says."""
    line = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    try:
        say(line)
    except UnicodeEncodeError:
        say(json.dumps(value))


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table; the columns named in `numbers` are aligned to the right and their integers grouped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        # `escape`d by being no markup at all: a queue's content is not ours to interpret.
        table.add_row(*(_cell(value) for value in row))
    Console(markup=False, highlight=False).print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else printable(str(value))


def printable(text: str) -> str:
    """`text` without what would steer a terminal: control characters but for newline and tab are shown as escapes."""
    return "".join(
        mark if mark.isprintable() or mark in "\n\t" else mark.encode("unicode_escape").decode() for mark in text
    )


def json_option(name: str, text: str) -> Any:
    """The JSON that an option gives. Raises `UsageError`."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name} is not JSON: {error}") from None


def read_lines(data: bytes) -> list[bytes]:
    """The lines of `data`, without their ends; a last line without an end counts too, an empty one does not."""
    return [line.removesuffix(b"\r") for line in data.removesuffix(b"\n").split(b"\n")] if data else []
