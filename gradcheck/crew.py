"""The workers of a run: which process does what, in its own thread, environments built once, failures contained.

One process per framework and process settings. Frameworks run in parallel, a framework's jobs one after the other.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gradcheck.catalog import Backend
from gradcheck.environments import Environment, environments_folder, resolve
from gradcheck.errors import BackendError
from gradcheck.model import BackendReport, Case
from gradcheck.session import Arrays, OneRollout, Session
from gradcheck.workers import Limits, Worker

T = TypeVar("T")


@dataclass
class Lane:
    """One worker, the thread that feeds it, and a lock for those who ask it something from another thread."""

    worker: Worker
    executor: ThreadPoolExecutor
    lock: threading.RLock = field(default_factory=threading.RLock)


@dataclass
class Tally:
    """What a rollout cost over the run."""

    seconds: float = 0.0
    evaluations: int = 0


class Crew:
    """Use as a context manager: leaving it ends every worker, whatever happened."""

    def __init__(
        self,
        catalog: Mapping[str, tuple[Backend, str]],
        *,
        given: Mapping[str, Path],
        offline: bool,
        limits: Limits,
        jobs: int | None,
        progress: Callable[[str], None],
    ) -> None:
        self.catalog = catalog
        self._given, self._offline, self._limits, self._progress = given, offline, limits, progress
        self._slots = threading.BoundedSemaphore(jobs) if jobs else None
        self._guard = threading.Lock()
        self._lanes: dict[tuple[str, tuple[Any, ...]], Lane] = {}
        self._environments: dict[str, Future[Environment]] = {}
        self._builders = ThreadPoolExecutor(max_workers=4, thread_name_prefix="environment")
        self._logs: Path | None = None
        self.tallies: dict[str, Tally] = {}
        self.failed = False

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        keep_logs = self.failed and kind is not KeyboardInterrupt  # asked now: ending a busy worker is a failure, too
        for lane in self._lanes.values():
            lane.worker.close()
            lane.executor.shutdown(wait=False, cancel_futures=True)
        self._builders.shutdown(wait=False, cancel_futures=True)
        if self._logs and not keep_logs:
            shutil.rmtree(self._logs, ignore_errors=True)

    @property
    def logs(self) -> Path:
        """Where the workers' logs are; kept after the run only if a worker failed."""
        if self._logs is None:
            self._logs = Path(tempfile.mkdtemp(prefix="gradcheck-logs-"))
        return self._logs

    def submit(self, case: Case, name: str, job: Callable[[], T]) -> Future[T]:
        """Run a job in the thread of the worker that serves this case and backend."""
        lane = self._lane(case, self.catalog[name][0])

        def limited() -> T:
            if self._slots is None:
                return job()
            with self._slots:
                return job()

        return lane.executor.submit(limited)

    @contextmanager
    def session(
        self, case: Case, name: str, arrays: Arrays, widen: bool = False, deadline: float | None = None
    ) -> Iterator[Session]:
        """A prepared case on a backend, forgotten by the worker afterwards. Raises BackendError.

        widen: of a native model in float32, its float64 twin. deadline: when (in time.monotonic) every job must have ended, of a
        diagnosis; that one fails is then no news.
        """
        backend, rollout = self.catalog[name]
        lane = self._lane(case, backend)
        tally = self.tallies.setdefault(name, Tally())
        started = time.monotonic()
        session: Session | None = None
        with lane.lock:
            before, lane.worker.deadline = lane.worker.deadline, deadline
            try:
                self._ready(lane, backend)
                session = Session(lane.worker, case, backend.name, rollout, arrays, widen)
                yield session
            except OneRollout:
                raise
            except BackendError:
                self.failed = self.failed or not (widen or deadline is not None)  # not every model has a twin
                raise
            finally:
                lane.worker.deadline = before
                if session is not None:
                    tally.evaluations += session.evaluations
                    session.close()
                tally.seconds += time.monotonic() - started

    def reports(self, names: Sequence[str]) -> tuple[BackendReport, ...]:
        """Who did the work, in the order of the names; a backend that never started has empty versions."""
        return tuple(self._report(name) for name in names)

    def _report(self, name: str) -> BackendReport:
        backend, _ = self.catalog[name]
        tally = self.tallies.get(name, Tally())
        facts: dict[str, Any] = {}
        kind = ""
        for (lane_name, _), lane in self._lanes.items():
            if lane_name == backend.name and lane.worker.facts and lane.worker.environment:
                facts, kind = lane.worker.facts, lane.worker.environment.kind
        return BackendReport(
            name,
            backend.framework,
            facts.get("framework_version", ""),
            facts.get("python", ""),
            kind,
            tally.seconds,
            tally.evaluations,
        )

    def _lane(self, case: Case, backend: Backend) -> Lane:
        """The lane whose process has the settings that this case needs."""
        settings = process_settings(case, backend)
        with self._guard:
            key = (backend.name, tuple(sorted(settings.items())))
            if key not in self._lanes:
                worker = self._hired(backend, settings)
                self._lanes[key] = Lane(worker, ThreadPoolExecutor(max_workers=1, thread_name_prefix=backend.name))
            return self._lanes[key]

    def _hired(self, backend: Backend, settings: dict[str, Any]) -> Worker:
        """A new worker for these settings of the process."""
        settings["cache"] = str(environments_folder().parent / "compiled" / backend.name)
        return Worker(backend, None, settings, self.logs / f"{backend.name}-{len(self._lanes)}.log", self._limits)

    def _ready(self, lane: Lane, backend: Backend) -> None:
        """Give the lane's worker its environment, built at most once per run, in parallel with the others."""
        if lane.worker.environment is None:
            with self._guard:
                if backend.name not in self._environments:
                    self._environments[backend.name] = self._builders.submit(
                        resolve,
                        backend,
                        given=self._given.get(backend.name),
                        offline=self._offline,
                        progress=self._progress,
                    )
            lane.worker.environment = self._environments[backend.name].result()


def process_settings(case: Case, backend: Backend) -> dict[str, Any]:
    """The values of the options that hold for a whole process, and of the dtype where that is one of them."""
    chosen = case.options.get(backend.name, {})
    return {
        name: case.process_dtype if name == "dtype" else chosen.get(name, backend.options[name].default)
        for name in backend.process_options
    }
