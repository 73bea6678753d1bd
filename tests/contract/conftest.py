"""A bench for backends in their real environments: cases written into a folder, workers that stay warm, results on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from gradcheck._backends._worker import directions
from gradcheck._backends._worker.problem import load_step
from gradcheck.case_file import load
from gradcheck.catalog import load_backends
from gradcheck.crew import Crew
from gradcheck.data import arrays as seeded_arrays
from gradcheck.evidence import BackendEvidence
from gradcheck.model import Case, Placement, Role
from gradcheck.pipeline import job, outcome
from gradcheck.session import Arrays, Session
from gradcheck.workers import Limits


class Bench:
    """Runs cases on any backend. What is asked for is kept: many tests look at one examination."""

    def __init__(self, folder: Path, crew: Crew) -> None:
        self.folder, self.crew = folder, crew
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

    def examined(self, case: Case, rollout: str, beside: Iterable[str] = ()) -> BackendEvidence:
        """The evidence of one case on one backend; an error is in it, not raised. beside: who will be asked next."""
        self.order(case, rollout, *beside)
        return outcome(case, rollout, self._results[case.path, rollout])

    def session(self, case: Case, rollout: str, arrays: Arrays | None = None) -> AbstractContextManager[Session]:
        """The prepared case, for those who ask the adapter themselves."""
        return self.crew.session(case, rollout, seeded_arrays(case) if arrays is None else arrays)

    @staticmethod
    def cotangent(case: Case, objective: str, shape: tuple[int, ...]) -> np.ndarray:
        """What every worker multiplies the values of a `dot` objective with."""
        digest = hashlib.blake2b(f"cotangent {case.seed} {objective}".encode(), digest_size=16).digest()
        entries = directions.expand(int.from_bytes(digest, "big"), 0, int(np.prod(shape)))
        return entries.reshape(shape).astype(case.dtype)

    def plain_loop(self, case: Case, draws: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """(objectives, sums of their terms' sizes) by NumPy itself. draws: those made in the step, time in front."""
        step = load_step(str(case.step_file), case.step_function)
        inputs = {**seeded_arrays(case), **draws}
        over_time = {
            i.name
            for i in case.inputs
            if i.role is Role.SEQUENCE or i.placement in (Placement.SEQUENCE, Placement.IN_STEP)
        }
        history: list[dict[str, np.ndarray]] = []
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


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    crew = Crew(load_backends(), given={}, offline=False, limits=Limits(), jobs=None, progress=lambda line: None)
    with crew:
        yield Bench(tmp_path_factory.mktemp("contract"), crew)
