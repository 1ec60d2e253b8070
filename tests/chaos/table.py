"""The table of docs/testing.md, from the results of runs."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.faults import FAULTS
from tests.chaos.run import Verdict


def table(verdicts: Sequence[Verdict]) -> str:
    """What all runs came to, by class of fault."""
    lines = [
        "| Fault | How it is made | Times | Runs | Operations | Lost | Unexplained duplicates | Worst first write | "
        "Worst recovery |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, fault in FAULTS.items():
        runs = [verdict for verdict in verdicts if any(kind in episode.kinds for episode in verdict.episodes)]
        episodes = [episode for verdict in runs for episode in verdict.episodes if kind in episode.kinds]
        if not episodes:
            continue
        alone = [episode for episode in episodes if episode.kinds == [kind]]  # two together may leave no majority
        writes = [episode.first_write_s for episode in alone if episode.first_write_s is not None]
        lines.append(
            f"| {kind} | {fault.how} | {len(episodes)} | {len(runs)} | "
            f"{sum(episode.operations for episode in episodes):,} | "
            f"{sum(verdict.lost for verdict in runs)} | {sum(verdict.unexplained for verdict in runs)} | "
            f"{f'{max(writes):.1f} s' if writes else '–'} | "
            f"{max(episode.recovered_s for episode in episodes):.1f} s |"
        )
    bad, runs_count = sum(bool(verdict.violations) for verdict in verdicts), len(verdicts)
    lines += [
        "",
        f"{runs_count} runs, {sum(verdict.seconds for verdict in verdicts) / 60:.0f} minutes, "
        f"{sum(verdict.operations for verdict in verdicts):,} operations, "
        f"{sum(verdict.messages for verdict in verdicts):,} messages: {bad} failed.",
    ]
    if not bad:
        lines.append(f"Zero failures in {runs_count} runs bound the failure rate of a run at 3/{runs_count} (95 %).")
    return "\n".join(lines)
