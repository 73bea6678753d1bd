"""A worker that is this very process, for models that live here: what gradcheck.check runs on.

Its operations and its adapter are the same as in a process of their own, loaded by file location under private names. It cannot
be stopped from outside: a time limit holds between two jobs, and a crash is the user's own.
"""

from __future__ import annotations

import os
import platform
import random
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from gradcheck.catalog import Backend
from gradcheck.crew import Crew
from gradcheck.environments import Environment
from gradcheck.errors import BackendError, UsageError
from gradcheck.interpreters import find_misfit, running_interpreter
from gradcheck.workers import Limits, Worker

BACKENDS = Path(str(files("gradcheck._backends")))
OURS = (str(Path(__file__).parent) + os.sep, str(BACKENDS) + os.sep)
LIBRARIES = ("site-packages", "dist-packages")
STANDARD = sysconfig.get_paths()["stdlib"] + os.sep


def operations() -> ModuleType:
    """The worker's own modules (backends/_worker), under the name that adapters know them by."""
    if "gradcheck_worker" not in sys.modules:
        folder = BACKENDS / "_worker"
        spec = spec_from_file_location(
            "gradcheck_worker", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = sys.modules["gradcheck_worker"] = module_from_spec(spec)
        spec.loader.exec_module(package)
    return import_module("gradcheck_worker.serve")


def adapter_of(backend: Backend) -> ModuleType:
    """A backend's adapter, loaded once a process. Raises UsageError if it has no `in_process` or its framework does not fit."""
    if misfit := find_misfit(backend, running_interpreter(backend)):
        raise UsageError(f"this process cannot check a model of {backend.framework}", context=misfit)
    name = f"gradcheck_backend_{backend.name}"
    try:
        adapter: ModuleType = sys.modules.get(name) or operations().load_adapter(
            str(backend.folder / "adapter.py"), name
        )
    except Exception as error:
        sys.modules.pop(name, None)
        raise UsageError(
            f"the adapter of {backend.name} cannot be loaded", context=f"{type(error).__name__}: {error}"
        ) from error
    if not hasattr(adapter, "in_process"):
        raise UsageError(
            f"the backend {backend.name} cannot check a model in this process: its adapter has no `in_process`",
            hint="write a native case and use `gradcheck run`",
        )
    return adapter


class InProcess(Worker):
    """The operations of one backend on one model that lives here. built: the model, in the framework's native form."""

    def __init__(self, backend: Backend, adapter: ModuleType, built: dict[str, Any]) -> None:
        here = running_interpreter(backend)
        environment = Environment(
            backend.name, backend.framework, here.path, here.version, "running", None, here.versions
        )
        super().__init__(backend, environment, {}, Path(os.devnull), Limits())
        self.facts = {"framework_version": environment.framework_version, "python": platform.python_version()}
        self._built, self._operations = built, operations().Worker(adapter)

    def start(self) -> dict[str, Any]:
        return self.facts

    @property
    def alive(self) -> bool:
        return True

    def _call(self, operation: str, job: dict[str, Any]) -> dict[str, Any]:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise BackendError("not finished: the time for the diagnosis is used up", code="GC903")
        if operation == "prepare":
            job["case"] = {**job["case"], "built": self._built, "step_file": ""}
        try:
            answer: dict[str, Any] = getattr(self._operations, operation)(**job)
        except (Exception, SystemExit) as error:
            told = operations().failure(error, None)
            raise BackendError(told["message"], context=users_line(error.__traceback__), code="GC905") from error
        return answer

    def kill(self) -> None:
        """There is no process to end; what it knows is forgotten."""
        self._operations.models.clear()


class OneProcess(Crew):
    """A crew whose only worker is this process."""

    def __init__(self, catalog: dict[str, tuple[Backend, str]], worker: InProcess) -> None:
        super().__init__(catalog, given={}, offline=True, limits=worker.limits, jobs=None, progress=lambda line: None)
        self._worker = worker

    def _hired(self, backend: Backend, settings: dict[str, Any]) -> Worker:
        return self._worker


def users_line(trace: TracebackType | None) -> str:
    """ "file:line" of the innermost frame that is neither a library's nor ours, "" if there is none."""
    found = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_users(file):
            found = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def is_users(file: str) -> bool:
    """Whether a file is the user's own code, and not that of gradcheck or of what is installed."""
    library = file.startswith(STANDARD) or any(name in file for name in LIBRARIES)
    return not (library or file.startswith((*OURS, "<frozen ")))


@contextmanager
def untouched() -> Iterator[None]:
    """Leave this process as it is: random states, sys.path, warning filters, numpy's error handling.

    What a model warns about at moved points, or what a framework says about our use of it, is no news of the user's.
    """
    own, legacy, path = random.getstate(), np.random.get_state(), list(sys.path)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            random.setstate(own)
            np.random.set_state(legacy)
            sys.path[:] = path
