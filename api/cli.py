"""The command `trimaran`: its commands, and what becomes of what goes wrong in them.

Each group of commands lives in a module `cli_…`, and is imported when it is run: a command should not pay for its
neighbours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from cyclopts import App, CycloptsError, Parameter

from api.console import CommandError, Exit, complain

HELP = """A durable, highly available message queue over plain HTTP, replicated on three small machines.

Start a cluster on this machine, and use it from another terminal:

```
trimaran local
trimaran queues create orders
trimaran send orders "one sloop, two oars"
trimaran receive orders --ack
```
"""

EPILOGUE = """Exit codes: 0 done; 1 refused or failed; 2 wrong usage or configuration; 3 nothing was received;
4 no node could carry it out; 130 interrupted."""


def _version() -> str:
    try:
        return version("trimaran")
    except PackageNotFoundError:
        return "unknown: not installed"


app = App(
    name="trimaran",
    help=HELP,
    help_epilogue=EPILOGUE,
    version=_version,
    help_format="markdown",
    default_parameter=Parameter(negative=""),
    result_action="return_value",
)
app.command("api.cli_serve:serve", name="serve")
app.command("api.cli_serve:local", name="local")
app.command("api.cli_messages:send", name="send")
app.command("api.cli_messages:receive", name="receive")
app.command("api.cli_messages:ack", name="ack")
app.command("api.cli_messages:nack", name="nack")
app.command("api.cli_messages:extend", name="extend")
app.command("api.cli_message:message", name="message")
app.command("api.cli_transaction:transaction", name="transaction")
app.command("api.cli_queues:queues", name="queues")
app.command("api.cli_topics:topics", name="topics")
app.command("api.cli_redrive:redrive", name="redrive")
app.command("api.cli_schedules:schedules", name="schedules")
app.command("api.cli_parties:producers", name="producers")
app.command("api.cli_parties:consumers", name="consumers")
app.command("api.cli_cluster:cluster", name="cluster")
app.command("api.cli_recover:recover", name="recover")
app.command("api.cli_scrub:scrub", name="scrub")
app.command("api.cli_bench:bench", name="bench")
app.command("api.cli_certs:certs", name="certs")
app.command("api.cli_keys:keys", name="keys")


def run(tokens: Sequence[str]) -> int:
    """Carry out one command line and return its exit code. Only a bug ends in a trace."""
    try:
        return int(app(tokens, exit_on_error=False) or Exit.DONE)
    except CycloptsError:
        return Exit.USAGE  # cyclopts has said why
    except CommandError as error:
        complain(f"trimaran: {error}")
        return error.code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def main() -> None:
    """Run as a program."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has read enough. What is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.DONE
    sys.exit(code)


if __name__ == "__main__":
    main()
