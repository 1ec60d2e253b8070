"""`python -m tests.simulation --seeds 0..999 [--broken NAME]`: many seeds, each of which repeats exactly."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.broken import BROKEN
from tests.simulation.chaos import Chaos, failure_of


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0..99", help="a seed, or the first and the last: 0..99")
    parser.add_argument("--broken", choices=sorted(BROKEN), help="break one rule, to see whether it is noticed")
    parser.add_argument("--trace", action="store_true", help="let the first failure show where it happened")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("..")
    options = BROKEN[arguments.broken] if arguments.broken else {}
    failed, began_s = 0, time.monotonic()
    totals: dict[str, int] = {}
    seeds = range(int(first), int(last or first) + 1)
    for seed in seeds:
        if arguments.trace:
            for key, count in Chaos(seed, **options).run().counts.items():
                totals[key] = totals.get(key, 0) + count
            continue
        failure = failure_of(seed, **options)
        if failure is not None:
            failed += 1
            sys.stdout.write(f"{failure}\n")
            sys.stdout.flush()
    seconds = time.monotonic() - began_s
    sys.stdout.write(f"{failed} of {len(seeds)} seeds failed, {seconds / len(seeds):.2f} s each {totals or ''}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
