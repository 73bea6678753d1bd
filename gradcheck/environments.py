"""Finds or builds the interpreter that a backend runs in.

In this order: the interpreter a user names; the running one, if it has what the backend requires; else an isolated
environment under the user's cache folder. uv builds it in a folder beside its place, and it is renamed into place once
its framework starts: what is in place is whole, and two builds at once end with one winner. Nothing here imports one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from gradcheck.catalog import Backend
from gradcheck.errors import BackendError
from gradcheck.interpreters import (
    Interpreter,
    Progress,
    ask,
    choose_base,
    find_misfit,
    given_interpreter,
    in_range,
    names_of,
    run_probe,
    running_base,
    running_interpreter,
)
from gradcheck.uv_tool import failure, pip_settings, run_uv, uv_settings

RECORD = "gradcheck-environment.json"
RECORD_VERSION = 1


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter that a backend can run in.

    kind: given, running or built; folder: of a built one, else None; versions: distribution, as the manifest spells it,
    -> version.
    """

    backend: str
    framework: str
    python: Path
    python_version: str
    kind: str
    folder: Path | None
    versions: dict[str, str]

    @property
    def framework_version(self) -> str:
        return self.versions.get(self.framework, "")


@dataclass(frozen=True, slots=True)
class Examination:
    """What `gradcheck doctor` has to say about a backend.

    why: why this kind of interpreter is used; folder: of the isolated environment, or the one it would be built in;
    environment: None if there is none yet; problem: why it cannot be used as it is, or None; probe: "" if not run,
    "ok", or the end of what the probe printed; seconds: that the examination took.
    """

    backend: str
    kind: str
    why: str
    folder: Path | None
    environment: Environment | None
    problem: str | None
    probe: str
    seconds: float


def resolve(
    backend: Backend, *, given: Path | None, offline: bool, rebuild: bool = False, progress: Progress = lambda _: None
) -> Environment:
    """The environment of a backend, built if need be. Raises BackendError GC901: what is missing and what helps."""
    if given is not None:
        return _environment(backend, given_interpreter(backend, given), "given")
    if not find_misfit(backend, running_interpreter(backend)):
        return _environment(backend, running_interpreter(backend), "running")
    if not rebuild and (ready := _ready(backend)):
        return ready
    return _build(backend, offline, rebuild, progress)


def health_problem(environment: Environment) -> str | None:
    """Why an environment cannot be used as it is, or None. Looks at files only: it is asked at every run."""
    if not environment.python.exists():
        return f"its interpreter {environment.python} is gone"
    if environment.folder is None:
        return None
    record = _record(environment.folder)
    if record is None:
        return f"its record {RECORD} is missing or cannot be read"
    if not Path(record["base"]).exists():
        return f"the interpreter it was built from, {record['base']}, is gone"
    for path in record["distributions"]:
        if not (environment.folder / path).is_dir():
            return f"{path} is gone"
    return None


def examine(backend: Backend, *, given: Path | None, deep: bool) -> Examination:
    """Which interpreter a backend would use, why, and whether it works; `deep` runs its probe. Builds nothing."""
    start = time.perf_counter()
    environment, folder, problem, probe = None, None, None, ""
    if given is not None:
        kind, why = "given", "it was named with --python or in [tool.gradcheck.python]"
        try:
            environment = _environment(backend, given_interpreter(backend, given), kind)
        except BackendError as error:
            problem = ": ".join(filter(None, (error.message, error.context)))
    elif not (misfit := find_misfit(backend, running_interpreter(backend))):
        kind, why = "running", "the running interpreter has all that the backend requires"
        environment = _environment(backend, running_interpreter(backend), kind)
    else:
        kind, why = "built", f"the running interpreter does not do: {misfit}"
        found = sorted(_built(backend), key=lambda built: built[1] is not None)  # healthy ones first
        environment, problem = found[0] if found else (None, "it is not built yet")
        folder = environment.folder if environment else environments_folder()
    if deep and environment and not problem:
        probe = run_probe(backend, environment.python, isolated=kind == "built") or "ok"
        problem = "its probe fails" if probe != "ok" else None
    return Examination(backend.name, kind, why, folder, environment, problem, probe, time.perf_counter() - start)


def remove(backend: Backend) -> list[Path]:
    """Remove what was built for a backend, under any of its manifests. Returns the folders."""
    ours = re.compile(re.escape(backend.name) + r"-[0-9a-f]{12}-[0-9a-f]{12}")
    root = environments_folder()
    folders = [folder for folder in sorted(root.glob(f"{backend.name}-*")) if ours.fullmatch(folder.name)]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return folders


def environments_folder() -> Path:
    """Where isolated environments are: under GRADCHECK_CACHE, else under the user's cache folder."""
    chosen = os.environ.get("GRADCHECK_CACHE")
    cache = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("gradcheck")
    return cache.absolute() / "environments"


def _environment(backend: Backend, interpreter: Interpreter, kind: str) -> Environment:
    return Environment(
        backend.name, backend.framework, interpreter.path, interpreter.version, kind, None, interpreter.versions
    )


# --- the isolated environments that are there -------------------------------------------------------------------------


def _stem(backend: Backend) -> str:
    """The part of a folder's name that says what is in it; what else a manifest says does not change an environment."""
    return f"{backend.name}-{_digest(RECORD_VERSION, backend.python, backend.pins, backend.probe)}"


def _place(backend: Backend, base: Interpreter) -> Path:
    return environments_folder() / f"{_stem(backend)}-{_digest(str(base.path), base.version)}"


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _built(backend: Backend) -> Iterator[tuple[Environment, str | None]]:
    """What is built for a backend, each with its health. Starts no process: this is the way that most runs take.

    If the running interpreter fits, only what is built from it counts; else from any: to find one means to ask around.
    """
    running = running_base()
    fits = in_range(backend, running.version)
    for folder in [_place(backend, running)] if fits else sorted(environments_folder().glob(f"{_stem(backend)}-*")):
        if folder.is_dir():
            environment = _open(backend, folder)
            yield environment, health_problem(environment)


def _ready(backend: Backend) -> Environment | None:
    return next((environment for environment, problem in _built(backend) if problem is None), None)


def _open(backend: Backend, folder: Path) -> Environment:
    record = _record(folder) or {"python": "", "versions": {}}
    python = folder / "bin" / "python"
    return Environment(backend.name, backend.framework, python, record["python"], "built", folder, record["versions"])


def _record(folder: Path) -> dict[str, Any] | None:
    """What was written about an environment when it was whole: python, base, pins, versions, distributions."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record if record["record_version"] == RECORD_VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# --- building one -----------------------------------------------------------------------------------------------------


def _build(backend: Backend, offline: bool, rebuild: bool, progress: Progress) -> Environment:
    base = choose_base(backend, offline, progress)
    place = _place(backend, base)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _lock(place, lambda: progress(f"{backend.name}: waiting for another run that builds this environment")):
            if not rebuild and place.is_dir():
                there = _open(backend, place)
                if (problem := health_problem(there)) is None:  # built by another run in the meantime
                    return there
                progress(f"{backend.name}: repairing its environment: {problem}")
            with tempfile.TemporaryDirectory(
                prefix=f".{place.name}-", dir=place.parent, ignore_cleanup_errors=True
            ) as aside:
                _fill(backend, base, Path(aside, "new"), offline, progress)
                if rebuild or health_problem(_open(backend, place)):  # where locks do not hold, another may have won
                    _move_into_place(Path(aside, "new"), place, Path(aside, "old"))
    except OSError as error:
        raise failure(
            backend,
            f"cannot write the environment of {backend.name} to {place.parent}",
            str(error),
            "set GRADCHECK_CACHE to a folder that can be written and has space",
        ) from error
    return _open(backend, place)


def _fill(backend: Backend, base: Interpreter, folder: Path, offline: bool, progress: Progress) -> None:
    """Make a whole environment in a new folder; its record comes last."""
    start = time.perf_counter()
    progress(f"{backend.name}: building an isolated environment with Python {base.version}, once")
    run_uv(backend, offline, "venv", "--relocatable", "--no-python-downloads", "--python", str(base.path), str(folder))
    python = folder / "bin" / "python"
    if backend.pins:
        progress(f"{backend.name}: installing {', '.join(pin.replace('==', ' ') for pin in backend.pins)}")
        variables, flags = uv_settings(pip_settings(running_base().path), os.environ)
        run_uv(backend, offline, "pip", "install", "--python", str(python), *flags, *backend.pins, variables=variables)
    if backend.probe:
        progress(f"{backend.name}: checking that {backend.framework} starts")
        if said := run_probe(backend, python, isolated=True):
            raise failure(backend, f"{backend.framework} was installed but does not start", said)
    answer = ask(python, names_of(backend), isolated=True)
    if isinstance(answer, str):
        raise failure(backend, f"the interpreter of {backend.name}'s environment does not start", answer)
    record = {
        "record_version": RECORD_VERSION,
        "backend": backend.name,
        "python": answer.version,
        "base": str(base.path),
        "pins": backend.pins,
        "versions": answer.versions,
        "distributions": answer.distributions,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    progress(f"{backend.name}: ready after {time.perf_counter() - start:.0f} s")


def _move_into_place(new: Path, place: Path, old: Path) -> None:
    """Renames, so that no other run ever sees half an environment; what was in place goes aside first."""
    with contextlib.suppress(FileNotFoundError):
        place.rename(old)
    try:
        new.rename(place)
    except OSError:
        if not place.is_dir():  # else another run was faster: its environment is as good
            raise


@contextlib.contextmanager
def _lock(place: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Let one run at a time build what belongs in a place. The lock ends with its process, however that ends."""
    with open(place.with_name(f".{place.name}.lock"), "w") as file:  # never removed: two runs could lock two files
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: the renames alone are safe, only slower
            yield
            return
        for left in place.parent.glob(f".{place.name}-*"):  # by a run that was killed: none is building now
            shutil.rmtree(left, ignore_errors=True)
        yield
