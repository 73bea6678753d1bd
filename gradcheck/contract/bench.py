"""What scenarios run on: cases written into a folder, workers that stay warm, evidence on demand; and what a scenario is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._backends._worker import directions, equations
from gradcheck._backends._worker.problem import load_step
from gradcheck.case_file import load
from gradcheck.catalog import Backend
from gradcheck.crew import Crew
from gradcheck.data import arrays as seeded_arrays
from gradcheck.evidence import BackendEvidence
from gradcheck.model import Case, Placement, Role
from gradcheck.pipeline import job, outcome
from gradcheck.session import Arrays, Session

Catalog = Mapping[str, tuple[Backend, str]]


class Broken(AssertionError):
    """A scenario does not hold, and how."""


def require(holds: bool, message: str) -> None:
    if not holds:
        raise Broken(message)


@dataclass(frozen=True)
class Scenario:
    """One thing that every backend has to do.

    check: raises if it does not. needs: the names of xp it calls, which a backend may declare not to have. rollouts: "every",
    "scan" (scans alone) or "one" (the quickest one of each framework: its unroll).
    """

    name: str
    check: Callable[[Bench, str], None]
    needs: frozenset[str] = frozenset()
    rollouts: str = "every"

    def concerns(self, rollout: str, catalog: Catalog) -> bool:
        backend, kind = catalog[rollout]
        if self.rollouts == "one":
            quickest = next((name for name, kind in backend.rollouts.items() if kind == "unroll"), None)
            return rollout == (quickest or next(iter(backend.rollouts)))
        return self.rollouts == "every" or kind == "scan"

    def lacking(self, rollout: str, catalog: Catalog) -> list[str]:
        """The names it needs and the backend declares not to have."""
        return sorted(self.needs - set(catalog[rollout][0].xp))

    def run(self, bench: Bench, rollout: str) -> None:
        bench.beside = [name for name in bench.rollouts if self.concerns(name, bench.crew.catalog)]
        self.check(bench, rollout)


class Bench:
    """Runs cases on any backend. What is asked for is kept: many scenarios look at one examination.

    rollouts: all that scenarios are run on; they are examined in parallel where they are of different frameworks.
    """

    def __init__(self, folder: Path, crew: Crew, rollouts: Collection[str] = ()) -> None:
        self.folder, self.crew, self.rollouts = folder, crew, tuple(rollouts)
        self.beside: list[str] = []  # the rollouts that the scenario at hand is run on, too
        self.frameworks = {backend.name for backend, _ in crew.catalog.values()}
        self._results: dict[tuple[Path, str], Future[BackendEvidence]] = {}

    def case(self, name: str, text: str, **files: str) -> Case:
        """Write a case and its step file (step=...) and further modules, in a folder of their own, and load it."""
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir()
            for file, content in files.items():
                (folder / f"{file}.py").write_text(content)
            (folder / "case.yaml").write_text(f"name: {name}\n{text}")
        return load(folder / "case.yaml", self.frameworks)

    def order(self, case: Case, *rollouts: str) -> None:
        """Have the case examined on these backends, in parallel where they are of different frameworks."""
        for name in rollouts:
            if (case.path, name) not in self._results:
                examine = job(case, name, seeded_arrays(case), self.crew)
                self._results[case.path, name] = self.crew.submit(case, name, examine)

    def examined(self, case: Case, rollout: str, beside: Iterable[str] | None = None) -> BackendEvidence:
        """The evidence of one case on one backend; an error is in it, not raised. beside: who will be asked next."""
        self.order(case, rollout, *(self.beside if beside is None else beside))
        return outcome(case, rollout, self._results[case.path, rollout])

    def session(self, case: Case, rollout: str, arrays: Arrays | None = None) -> AbstractContextManager[Session]:
        """The prepared case, for those who ask the adapter themselves."""
        return self.crew.session(case, rollout, seeded_arrays(case) if arrays is None else arrays)

    @staticmethod
    def cotangent(case: Case, objective: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """What every worker multiplies the values of a `dot` objective with."""
        digest = hashlib.blake2b(f"cotangent {case.seed} {objective}".encode(), digest_size=16).digest()
        entries = directions.expand(int.from_bytes(digest, "big"), 0, int(np.prod(shape)))
        weights: NDArray[Any] = entries.reshape(shape).astype(case.dtype)
        return weights

    def plain_loop(self, case: Case, draws: Arrays) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(objectives, sums of their terms' sizes) by NumPy itself. draws: those made in the step, time in front."""
        step = step_of(case)
        inputs = {**seeded_arrays(case), **draws}
        over_time = {
            i.name
            for i in case.inputs
            if i.role is Role.SEQUENCE or i.placement in (Placement.SEQUENCE, Placement.IN_STEP)
        }
        history: list[dict[str, NDArray[Any]]] = []
        for t in range(case.steps):
            result = step(np, **{name: array[t] if name in over_time else array for name, array in inputs.items()})
            inputs.update({i.name: result[i.name] for i in case.inputs_of(Role.CARRY)})
            history.append(result)
        values, sizes = [], []
        for o in case.objectives:
            terms = np.stack([row[o.of] for row in history])
            terms = terms if o.at == "all" else terms[-1 if o.at == "last" else o.at]
            terms = terms * self.cotangent(case, o.name, terms.shape) if o.reduce == "dot" else terms
            reduce = np.mean if o.reduce == "mean" else np.sum
            values.append(reduce(terms))
            sizes.append(reduce(np.abs(terms)))
        return np.array(values, dtype=np.float64), np.array(sizes, dtype=np.float64)


def step_of(case: Case) -> Callable[..., dict[str, Any]]:
    """The step of a case, as a worker would call it."""
    if case.equations:
        rows = [equations.Equation(e.name, e.line, e.text) for e in case.equations]
        names, carries = [i.name for i in case.inputs], [i.name for i in case.inputs_of(Role.CARRY)]
        return equations.step(rows, names, carries, case.outputs, str(case.step_file))  # type: ignore[no-any-return]  # untyped
    return load_step(str(case.step_file), case.step_function)  # type: ignore[no-any-return]  # untyped: the worker's
