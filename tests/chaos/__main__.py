"""`python -m tests.chaos`: real nodes under real faults. `make chaos` is a full pass.

Each run has a world of its own (`tests.chaos.tools`): nothing outside is touched, and nothing is left behind but the
logs of a run that failed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.chaos.broken import BROKEN
from tests.chaos.faults import FAULTS
from tests.chaos.run import VERDICT, Plan, Verdict, say, summary
from tests.chaos.table import table
from tests.chaos.tools import in_world, install, obstacle

SKIPPED = 77
"""Exit code when chaos cannot run here."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=14)
    parser.add_argument("--seconds", type=float, default=180, help="of faults in each run")
    parser.add_argument("--nodes", default="3,5", help="nodes of the runs in turn, such as 3 or 3,5")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which, separated by commas")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--once", action="store_true", help="each fault once and briefly, as many as --seconds allow")
    parser.add_argument(
        "--broken", default="", choices=("", *BROKEN), help="break a rule, to see whether it is noticed"
    )
    parser.add_argument("--results", type=Path, help="file to which each run's result is added, as a line of JSON")
    parser.add_argument("--table", action="store_true", help="only print the table of what --results holds")
    parser.add_argument("--install", action="store_true", help="only install the missing tools, if that can be done")
    arguments = parser.parse_args()
    arguments.faults = tuple(kind for kind in arguments.faults.split(",") if kind)
    arguments.nodes = [int(count) for count in arguments.nodes.split(",")]
    unknown = [kind for kind in arguments.faults if kind not in FAULTS]
    if unknown:
        parser.error(f"{unknown[0]} is no fault; there are: {', '.join(FAULTS)}")
    return arguments


def main() -> int:
    arguments = parse()
    if arguments.table:
        lines = arguments.results.read_bytes().splitlines()
        sys.stdout.write(table([msgspec.json.decode(line, type=Verdict) for line in lines]) + "\n")
        return 0
    if arguments.install:
        install()
        return 0
    why = obstacle()
    if why is not None:
        say(f"skipped: {why}")
        return SKIPPED
    verdicts: list[Verdict] = []
    for number in range(arguments.runs):
        nodes = arguments.nodes[number % len(arguments.nodes)]
        plan = Plan(
            nodes,
            arguments.seconds,
            arguments.faults,
            f"{arguments.seed}-{number + 1}",
            arguments.once,
            arguments.broken,
        )
        say(f"run {number + 1} of {arguments.runs}: seed {plan.seed}, {nodes} nodes")
        verdict = one(plan)
        if verdict is None:
            return 1
        verdicts.append(verdict)
        if arguments.results is not None:
            with arguments.results.open("ab") as file:
                file.write(msgspec.json.encode(verdict) + b"\n")
    sys.stdout.write(table(verdicts) + "\n")
    return 1 if any(verdict.violations for verdict in verdicts) else 0


def one(plan: Plan) -> Verdict | None:
    """A run in a world of its own. None: it did not come to an end; what it said tells why."""
    directory = Path(tempfile.mkdtemp(prefix="trimaran-chaos-"))
    argv = (sys.executable, "-m", "tests.chaos.run", msgspec.json.encode(plan).decode(), str(directory))
    ended = subprocess.run(in_world(argv), check=False)
    verdict = None
    if ended.returncode == 0:
        verdict = msgspec.json.decode((directory / VERDICT).read_bytes(), type=Verdict)
        say(summary(verdict))
    if verdict is None or verdict.violations:
        say(f"  logs are kept in {directory}")
    else:
        shutil.rmtree(directory)
    return verdict


if __name__ == "__main__":
    sys.exit(main())
