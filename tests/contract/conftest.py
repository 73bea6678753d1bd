"""A bench for backends in their real environments: cases written into a folder, workers that stay warm, results on demand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from gradcheck.case_file import load
from gradcheck.catalog import load_backends
from gradcheck.check import job, outcome
from gradcheck.crew import Crew
from gradcheck.data import arrays as seeded_arrays
from gradcheck.examine import BackendEvidence
from gradcheck.model import Case
from gradcheck.session import Arrays, Session
from gradcheck.workers import Limits


class Bench:
    """Runs cases on any backend. What is asked for is kept: many tests look at one examination."""

    def __init__(self, folder: Path, crew: Crew) -> None:
        self.folder, self.crew = folder, crew
        self.frameworks = {backend.name for backend, _ in crew.catalog.values()}
        self._results: dict[tuple[Path, str], Future[BackendEvidence]] = {}
        self._cases: dict[Path, Case] = {}

    def case(self, name: str, text: str, step: str = "", **more_files: str) -> Case:
        """Write `name`.yaml and the step file step.py beside it, in a folder of their own, and load the case."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for file, content in {"step": step, **more_files}.items():
            if content:
                (folder / f"{file}.py").write_text(content)
        path = folder / "case.yaml"
        path.write_text(f"name: {name}\nstep: step.py:step\n{text}")
        return load(path, self.frameworks)

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


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    crew = Crew(load_backends(), given={}, offline=False, limits=Limits(), jobs=None, progress=lambda line: None)
    with crew:
        yield Bench(tmp_path_factory.mktemp("contract"), crew)
