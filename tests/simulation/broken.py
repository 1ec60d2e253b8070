"""Variants of the product that break one rule each, to show that the simulation would notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster.engine import Engine
from cluster.tuning import Tuning
from tests.simulation import broken_engines as engines
from tests.simulation.disk import Disk
from tests.simulation.oracle import Watched


@dataclass(frozen=True)
class Variant:
    """What is put in the place of what. `patches`: module or class → its names → what they stand for."""

    engine: type[Engine] = Engine
    replica: type[Watched] = Watched
    disk: type[Disk] = Disk
    tuning: Callable[[Tuning], Tuning] = lambda tuning: tuning
    patches: dict[Any, dict[str, Any]] = field(default_factory=dict)


SOUND = Variant()
BROKEN: dict[str, Variant] = {
    "truncates": Variant(engine=engines.Truncates),
    "trusts-old-answers": Variant(engine=engines.TrustsOldAnswers),
    "commits-unverified": Variant(engine=engines.CommitsUnverified),
    "forgets-that-it-forgot": Variant(engine=engines.ForgetsThatItForgot),
    "answers-alone": Variant(engine=engines.AnswersAlone),
    "answers-too-soon": Variant(engine=engines.AnswersTooSoon),
    "compacts-too-much": Variant(engine=engines.CompactsWhatIsNotDurable),
    "asks-nobody-before": Variant(engine=engines.AsksNobodyBefore),
}
