"""`gradcheck doctor --contract DIR`: runs the battery on a foreign backend and says of each scenario whether it holds."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from gradcheck.catalog import Backend
from gradcheck.contract import battery
from gradcheck.contract.bench import Bench, Scenario
from gradcheck.crew import Crew
from gradcheck.errors import BackendError, GradcheckError
from gradcheck.workers import Limits

Echo = Callable[[str], None]
HOLDS, BROKEN, LEFT_OUT = "holds", "BROKEN", "left out"
LINES = 12  # of what a scenario says
CANNOT_RUN = ("GC901",)


def run_contract(
    backend: Backend, catalog: Mapping[str, tuple[Backend, str]], given: Mapping[str, Path], offline: bool, echo: Echo
) -> int:
    """Run every scenario on every rollout. Returns 0 if all hold, 1 if one does not, 3 if the backend cannot be run."""
    scenarios = battery(backend.xp)
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="gradcheck-contract-") as folder:
        crew = Crew(catalog, given=given, offline=offline, limits=Limits(), jobs=None, progress=echo)
        with crew:
            bench = Bench(Path(folder), crew, backend.rollouts)
            for rollout in backend.rollouts:
                echo(f"{rollout}:")
                for scenario in scenarios:
                    if not scenario.concerns(rollout, catalog):
                        continue
                    try:
                        outcome, words = judged(scenario, bench, rollout)
                    except BackendError as error:
                        echo(f"  cannot be run: {error.message}")
                        for line in (error.context, error.hint and f"help: {error.hint}"):
                            echo(f"    {line}") if line else None
                        return 3
                    told[outcome] += 1
                    echo(f"  {outcome:<8}  {scenario.name}")
                    for line in words.splitlines()[:LINES]:
                        echo(f"            {line}")
    return concluded(backend, told, echo)


def judged(scenario: Scenario, bench: Bench, rollout: str) -> tuple[str, str]:
    """(outcome, what is to be said about it). Raises BackendError if there is no process to ask."""
    if lacking := scenario.lacking(rollout, bench.crew.catalog):
        return LEFT_OUT, f"it needs {', '.join(lacking)}"
    try:
        scenario.run(bench, rollout)
    except AssertionError as broken:
        return BROKEN, str(broken).strip() or "an answer is not of the form that the contract describes"
    except GradcheckError as error:
        if error.code in CANNOT_RUN:
            raise
        return BROKEN, "\n".join(filter(None, (f"{error.code} {error.message}".strip(), error.context)))
    except Exception as error:  # an answer of another form, as it shows wherever it is used first
        return BROKEN, f"an answer is not of the form that the contract describes: {type(error).__name__}: {error}"
    return HOLDS, ""


def concluded(backend: Backend, told: Counter[str], echo: Echo) -> int:
    left_out = f", {told[LEFT_OUT]} left out for names that the manifest does not declare" if told[LEFT_OUT] else ""
    echo(f"{backend.name}: {told[HOLDS]} hold, {told[BROKEN]} do not{left_out}")
    return 1 if told[BROKEN] else 0
