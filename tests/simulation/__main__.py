"""`python -m tests.simulation --seeds 0..999`: whole clusters on simulated machines, each seed a history of trouble.

A seed and a commit repeat exactly. A seed that fails is told with the promise that was broken, then cut down: what is
left out of its plan is what is not needed for that. Printed are what is left, which `--plan FILE` runs again, and its
transcript. `--broken NAME` breaks one rule, to see after how many seeds it is noticed.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.simulation.broken import BROKEN, SOUND
from tests.simulation.minimise import Minimiser
from tests.simulation.plan import KINDS, STORIES, Plan, make
from tests.simulation.run import Told, lived

LINES_MAX = 60
"""Lines of a transcript that are printed, if not all are asked for."""


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.plan:
        plan = msgspec.json.decode(Path(arguments.plan).read_bytes(), type=Plan)
        return _tell(plan, lived(plan, BROKEN.get(arguments.broken, SOUND)), arguments)
    first, _, last = arguments.seeds.partition("..")
    return _campaign(range(int(first), int(last or first) + 1), arguments)


def _campaign(seeds: range, arguments: argparse.Namespace) -> int:
    began_s, done, failed, simulated_s, totals = time.monotonic(), 0, 0, 0.0, collections.Counter[str]()
    faults = tuple(arguments.faults.split(",")) if arguments.faults else ()
    for told in _run(seeds, faults, arguments.broken, arguments.processes):
        done += 1
        simulated_s += told.simulated_s
        for name, count in told.totals.items():
            totals[name] = max(totals[name], count) if name.endswith(" max") else totals[name] + count
        if told.check is not None:
            failed += 1
            _tell(make(told.seed, faults), told, arguments)
        seconds = time.monotonic() - began_s
        if sys.stderr.isatty():
            left_s = seconds / done * (len(seeds) - done)
            sys.stderr.write(f"\r{done} of {len(seeds)} seeds, {failed} failed, {left_s:.0f} s left \r")
        if failed and arguments.first:
            break
    seconds = time.monotonic() - began_s
    for name in sorted(totals):
        sys.stdout.write(f"{totals[name]:12,d} {name}\n")
    sys.stdout.write(
        f"{failed} of {done} seeds failed: {simulated_s / 60:.0f} simulated minutes in {seconds:.0f} s, "
        f"{simulated_s / 60 / done:.1f} minutes and {seconds / done:.2f} s each\n"
    )
    return 1 if failed else 0


def digest(told: Told) -> str:
    """What tells one run from another: every line of its transcript, and all that was counted."""
    return hashlib.sha256("\n".join([*told.transcript, str(sorted(told.totals.items()))]).encode()).hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0..99", help="a seed, or the first and the last: 0..99")
    parser.add_argument("--faults", default="", help=f"only these, with commas between: {', '.join(KINDS | STORIES)}")
    parser.add_argument("--broken", choices=sorted(BROKEN), default="", help="break one rule")
    parser.add_argument("--first", action="store_true", help="stop at the first seed that fails")
    parser.add_argument("--as-it-is", action="store_true", help="do not cut down the plans of seeds that fail")
    parser.add_argument("--transcript", action="store_true", help="print all of it, not only its end")
    parser.add_argument("--plan", help="run the plan in this file (JSON) instead of seeds")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser


def _run(seeds: range, faults: tuple[str, ...], broken: str, processes: int) -> Iterator[Told]:
    if processes == 1 or len(seeds) == 1:
        yield from (_one((seed, faults, broken)) for seed in seeds)
        return
    # Each process ends after some seeds, so that none grows old.
    with multiprocessing.Pool(processes, maxtasksperchild=20) as pool:
        yield from pool.imap(_one, [(seed, faults, broken) for seed in seeds])


def _one(work: tuple[int, tuple[str, ...], str]) -> Told:
    seed, faults, broken = work
    return lived(make(seed, faults), BROKEN.get(broken, SOUND))


def _tell(plan: Plan, told: Told, arguments: argparse.Namespace) -> int:
    """Print what there is to know about a plan that failed."""
    if told.check is None:
        sys.stdout.write(f"seed {plan.seed} holds: {digest(lived(plan, transcript=True))}\n")
        return 0
    variant, command = BROKEN.get(arguments.broken, SOUND), "python -m tests.simulation"
    sys.stdout.write(f"\nseed {plan.seed} fails after {told.simulated_s:.1f} s: {told.check}: {told.detail}\n")
    if not arguments.as_it_is:
        plan = Minimiser(lambda plan: lived(plan, variant).check, _progress).minimise(plan)
        sys.stdout.write(
            f"what is left of its plan, for {command} --plan FILE:\n{msgspec.json.encode(plan).decode()}\n"
        )
    lines = lived(plan, variant, transcript=True).transcript
    left_out = 0 if arguments.transcript else max(0, len(lines) - LINES_MAX)
    if left_out:
        sys.stdout.write(f"({left_out} lines before: --transcript shows them)\n")
    sys.stdout.writelines(f"{line}\n" for line in lines[left_out:])
    sys.stdout.flush()
    return 1


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
