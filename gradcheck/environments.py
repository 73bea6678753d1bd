"""Finds or builds the interpreter that a backend runs in.

In this order: the interpreter a user names; the running one, if it has what the backend requires; else an isolated
environment under the user's cache folder. uv builds it in a folder beside its place, and it is renamed into place once
its framework starts: what is in place is whole, and two builds at once end with one winner. Nothing here imports one.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import platformdirs
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from gradcheck.catalog import Backend
from gradcheck.errors import BackendError

RECORD = "gradcheck-environment.json"
RECORD_VERSION = 1
PROBE_SECONDS = 120
ASK_SECONDS = 30  # for an interpreter to start and say what it is
QUOTED_LINES = 8  # of a failed command's output
SYSTEM_FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")  # searched for interpreters even if not on PATH

Progress = Callable[[str], None]


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


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What an interpreter says of itself. base: the one it is an environment of, or itself; without symlinks."""

    path: Path
    version: str
    base: Path
    versions: dict[str, str] = field(default_factory=dict)
    distributions: tuple[str, ...] = ()  # the metadata folders of `versions`, relative to the environment


def resolve(
    backend: Backend, *, given: Path | None, offline: bool, rebuild: bool = False, progress: Progress = lambda _: None
) -> Environment:
    """The environment of a backend, built if need be. Raises BackendError GC901: what is missing and what helps."""
    if given is not None:
        return _given(backend, given)
    if not _misfit(backend, _running(backend)):
        return _environment(backend, _running(backend), "running")
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
            environment = _given(backend, given)
        except BackendError as error:
            problem = ": ".join(filter(None, (error.message, error.context)))
    elif not (misfit := _misfit(backend, _running(backend))):
        kind, why = "running", "the running interpreter has all that the backend requires"
        environment = _environment(backend, _running(backend), kind)
    else:
        kind, why = "built", f"the running interpreter does not do: {misfit}"
        found = sorted(_built(backend), key=lambda built: built[1] is not None)  # healthy ones first
        environment, problem = found[0] if found else (None, "it is not built yet")
        folder = environment.folder if environment else environments_folder()
    if deep and environment and not problem:
        probe = _probe(backend, environment.python, isolated=kind == "built") or "ok"
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


# --- the interpreter a user names, and the running one ----------------------------------------------------------------

# what an interpreter is asked: any Python has to be able to answer, so that an old one is told from none
ASK = """
import json, os, sys
versions, folders = {}, []
try:
    from importlib import metadata
    for name in sys.argv[1:]:
        try:
            found = metadata.distribution(name)
            versions[name] = found.version
            folders.append(os.path.relpath(str(found._path), sys.prefix))
        except (metadata.PackageNotFoundError, AttributeError):
            pass
except ImportError:
    pass
base = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
version = "%d.%d.%d" % sys.version_info[:3]
print(json.dumps({"version": version, "base": base, "versions": versions, "folders": folders}))
"""


def _ask(python: Path, names: Iterable[str] = (), *, isolated: bool = False) -> Interpreter | str:
    """What an interpreter says of itself and of distributions, or why it says nothing."""
    command = [str(python), *(["-I"] if isolated else []), "-c", ASK, *names]
    try:
        # from / because -c puts the working directory on sys.path, and a user's folder may shadow a module
        done = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ASK_SECONDS, check=True
        )
        said = json.loads(done.stdout.strip().rpartition("\n")[2])
        base, distributions = Path(said["base"]), tuple(said["folders"])
        return Interpreter(python, said["version"], base, said["versions"], distributions)
    except subprocess.CalledProcessError as error:
        return _tail(error.stderr) or f"it exits with {error.returncode}"
    except subprocess.TimeoutExpired:
        return f"no answer within {ASK_SECONDS} s"
    except OSError as error:
        return error.strerror or str(error)
    except (ValueError, KeyError, TypeError):
        return "it does not answer as a Python interpreter does"


def _given(backend: Backend, given: Path) -> Environment:
    """The environment that a user names, by its interpreter or by its folder."""
    python = given.expanduser().absolute()  # not resolved: a virtual environment's interpreter is a symlink
    if python.is_dir():
        python = python / "bin" / "python"
    hint = f"name an interpreter that has them, or leave out --python {backend.name}=... and gradcheck builds one"
    if not python.exists():
        raise _failure(backend, f"there is no interpreter {python}", hint=hint)
    if not os.access(python, os.X_OK):
        raise _failure(backend, f"{python} cannot be run: it is not executable", hint=hint)
    answer = _ask(python, _names(backend))
    if isinstance(answer, str):
        raise _failure(backend, f"{python} is not a Python interpreter that works", answer, hint)
    if misfit := _misfit(backend, answer):
        missing = " ".join(f"'{requirement}'" for requirement in backend.requires)
        if _in_range(backend, answer.version):
            hint = f"{python} -m pip install {missing}\n{hint}"
        raise _failure(backend, f"{python} does not have what {backend.name} requires", misfit, hint)
    return _environment(backend, answer, "given")


def _running(backend: Backend) -> Interpreter:
    versions = {}
    for name in _names(backend):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return Interpreter(Path(sys.executable), _running_version(), _running_base(), versions)


def _running_version() -> str:
    return "{}.{}.{}".format(*sys.version_info)  # platform.python_version() may end in a "+" that is no version


def _running_base() -> Path:
    """The interpreter that the running one is an environment of, or itself: what outlives a virtual environment."""
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return (base if base.exists() else Path(sys.executable)).resolve()


def _names(backend: Backend) -> list[str]:
    """The distributions whose versions matter, each once, the framework first."""
    names: dict[str, str] = {}
    for name in (backend.framework, *(Requirement(text).name for text in (*backend.requires, *backend.pins))):
        names.setdefault(canonicalize_name(name), name)
    return list(names.values())


def _misfit(backend: Backend, interpreter: Interpreter) -> str:
    """What keeps an interpreter from running a backend, one line each; "" if nothing does."""
    if not _in_range(backend, interpreter.version):
        return f"it is Python {interpreter.version}, {backend.name} needs {backend.python}"
    versions = {canonicalize_name(name): version for name, version in interpreter.versions.items()}
    lines = []
    for text in backend.requires:
        requirement = Requirement(text)
        version = versions.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            has = f"no {requirement.name}" if version is None else f"{requirement.name} {version}"
            lines.append(f"it has {has}, {backend.name} needs {text}")
    return "\n".join(lines)


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
    running = _running_interpreter()
    fits = _in_range(backend, running.version)
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
    base = _base(backend, offline, progress)
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
        raise _failure(
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
    _uv(backend, offline, "venv", "--relocatable", "--no-python-downloads", "--python", str(base.path), str(folder))
    python = folder / "bin" / "python"
    if backend.pins:
        progress(f"{backend.name}: installing {', '.join(pin.replace('==', ' ') for pin in backend.pins)}")
        variables, flags = uv_settings(_pip_settings(), os.environ)
        _uv(backend, offline, "pip", "install", "--python", str(python), *flags, *backend.pins, variables=variables)
    if backend.probe:
        progress(f"{backend.name}: checking that {backend.framework} starts")
        if said := _probe(backend, python, isolated=True):
            raise _failure(backend, f"{backend.framework} was installed but does not start", said)
    answer = _ask(python, _names(backend), isolated=True)
    if isinstance(answer, str):
        raise _failure(backend, f"the interpreter of {backend.name}'s environment does not start", answer)
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


def _probe(backend: Backend, python: Path, *, isolated: bool) -> str:
    """Run the manifest's probe. Returns "" if it succeeds, else the end of what it printed."""
    command = [str(python), *(["-I"] if isolated else []), "-c", backend.probe]
    try:
        done = subprocess.run(
            command,
            cwd="/",
            env={**os.environ, **backend.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no end within {PROBE_SECONDS} s"
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else _tail(done.stdout) or f"it exits with {done.returncode}"


def _failure(backend: Backend, message: str, context: str = "", hint: str = "") -> BackendError:
    hint = hint or f"gradcheck doctor {backend.name} --rebuild, or --python {backend.name}=PATH"
    return BackendError(message, context=context, note="the other backends still run", hint=hint, code="GC901")


def _tail(text: str) -> str:
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-QUOTED_LINES:])


# --- interpreters to build from ---------------------------------------------------------------------------------------


def _running_interpreter() -> Interpreter:
    return Interpreter(_running_base(), _running_version(), _running_base())


def _in_range(backend: Backend, version: str) -> bool:
    return SpecifierSet(backend.python).contains(version, prereleases=True)


def _base(backend: Backend, offline: bool, progress: Progress) -> Interpreter:
    """The interpreter to build from: the running one if it fits, else one of this machine, else a downloaded one."""
    running = _running_interpreter()
    if _in_range(backend, running.version):
        return running
    if found := _installed(backend):
        return found
    missing = f"{backend.name} needs Python {backend.python}, which is not on this machine"
    hint = f"install one (uv python install '{backend.python}'), or --python {backend.name}=PATH"
    if offline:
        raise _failure(backend, missing, "--offline forbids downloading one", hint)
    progress(f"{backend.name}: downloading Python {backend.python}, as none of this machine fits")
    try:  # without links to it in a folder of the user's
        _uv(backend, offline, "python", "install", backend.python, variables={"UV_PYTHON_INSTALL_BIN": "0"})
    except BackendError as error:
        raise _failure(backend, f"{missing} and cannot be downloaded", error.context, hint) from error
    if found := _installed(backend):
        return found
    raise _failure(backend, missing, "one was downloaded, but is not to be found", hint)


def _installed(backend: Backend) -> Interpreter | None:
    """The newest interpreter of this machine that fits. Each is started: a name may be a shim that leads nowhere."""
    for minor, path in sorted(_candidates(), key=lambda candidate: -candidate[0]):  # stable: else as searched
        if _in_range(backend, f"3.{minor}.0") or _in_range(backend, f"3.{minor}.99"):
            answer = _ask(path, isolated=True)
            if not isinstance(answer, str) and _in_range(backend, answer.version):
                return Interpreter(answer.base, answer.version, answer.base)
    return None


def _candidates() -> Iterator[tuple[int, Path]]:
    """(minor version, path) of what looks like an interpreter by its name."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    folders = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    folders += map(Path, SYSTEM_FOLDERS)
    folders += pyenv.glob("versions/*/bin")
    folders += _uv_pythons().glob("*/bin")
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(OSError):
            for path in sorted(folder.glob("python3.*")):
                if name := re.fullmatch(r"python3\.(\d+)", path.name):
                    yield int(name[1]), path


# --- uv, and the settings of pip --------------------------------------------------------------------------------------

# these name another interpreter, environment or module than the one that is meant
NOT_FOR_UV = (
    *("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PYTHON_PREFERENCE", "UV_MANAGED_PYTHON", "UV_NO_MANAGED_PYTHON"),
    *("UV_WORKING_DIR", "UV_PROJECT", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"),
)
UV_INDEX_VARIABLES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX_STRATEGY")


def _run_uv(arguments: Sequence[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    import uv  # here, as only a build needs it

    environ = {name: value for name, value in os.environ.items() if name not in NOT_FOR_UV}
    # from a folder of no project, so that no project's settings apply
    command, environ = [uv.find_uv_bin(), *arguments], {**environ, **variables}
    return subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, errors="replace")


def _uv(backend: Backend, offline: bool, *arguments: str, variables: Mapping[str, str] | None = None) -> None:
    """Run uv for a backend's environment. Raises BackendError with the end of what it printed."""
    flags = ["--no-progress", *(["--offline"] if offline else [])]
    try:
        done = _run_uv([*arguments, *flags], variables or {})
    except FileNotFoundError as error:
        raise _failure(backend, "uv, which builds environments, is missing", str(error), "pip install uv") from error
    if done.returncode == 0:
        return
    if offline:
        raise _failure(
            backend,
            f"the environment of {backend.name} is not built, and --offline forbids downloading what it needs",
            _tail(done.stderr),
            f"gradcheck doctor {backend.name} once with a network, or --python {backend.name}=PATH",
        )
    hint = "see that the package index can be reached (pip's and uv's settings are used)"
    hint += f", then gradcheck doctor {backend.name}; or --python {backend.name}=PATH"
    raise _failure(backend, f"cannot build the environment of {backend.name}", _tail(done.stderr), hint)


def _uv_pythons() -> Path:
    """The folder of the interpreters that uv manages; one that does not exist if uv cannot tell."""
    try:
        return Path(_run_uv(["python", "dir"], {"NO_COLOR": "1"}).stdout.strip() or "/nonexistent")
    except OSError:
        return Path("/nonexistent")


def uv_settings(pip: Mapping[str, str], environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """pip's settings as uv's: (environment variables, flags). What a user has set for uv stays as it is.

    Variables rather than flags, because an index address may hold a password. Local places that are not there are left
    out: pip warns of them, uv fails.
    """
    variables: dict[str, str] = {}
    if not any(environ.get(name) for name in UV_INDEX_VARIABLES):
        variables["UV_DEFAULT_INDEX"] = " ".join(_places(pip.get("index-url", "")))
        variables["UV_EXTRA_INDEX_URL"] = " ".join(_places(pip.get("extra-index-url", "")))
        if variables["UV_EXTRA_INDEX_URL"]:
            # pip takes the best of all indexes, uv by default that of the first which knows the name
            variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    variables["UV_FIND_LINKS"] = ",".join(_places(pip.get("find-links", "")))
    variables["UV_INSECURE_HOST"] = " ".join(pip.get("trusted-host", "").split())
    variables["SSL_CERT_FILE"] = pip.get("cert", "")
    variables["ALL_PROXY"] = pip.get("proxy", "")
    flags = ["--no-index"] if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    return {name: value for name, value in variables.items() if value and not environ.get(name)}, flags


def _places(setting: str) -> list[str]:
    """The addresses and folders in a setting, made absolute, without the local ones that do not exist."""
    places = []
    for place in setting.split():
        address = urlsplit(place)
        if address.scheme in ("", "file"):
            path = Path(unquote(address.path) if address.scheme else place).expanduser().absolute()
            if not path.exists():
                continue
            place = place if address.scheme else str(path)
        places.append(place)
    return places


def _pip_settings() -> dict[str, str]:
    """pip's settings from its files, as far as pip is there to read them, and from the environment, which wins."""
    listed: dict[str, str] = {}
    for python in dict.fromkeys((Path(sys.executable), _running_base())):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = [str(python), "-m", "pip", "config", "list"]
            done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=ASK_SECONDS, check=True)
            listed = parse_pip_settings(done.stdout)
            break
    prefix = "PIP_"
    set_here = {
        name.removeprefix(prefix).lower().replace("_", "-"): value
        for name, value in os.environ.items()
        if name.startswith(prefix) and value
    }
    return {**listed, **set_here}


def parse_pip_settings(listing: str) -> dict[str, str]:
    """What `pip config list` prints (`global.index-url='...'`) as setting -> value; [install] goes before [global]."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, setting = name.rpartition(".")
        if section in sections:
            with contextlib.suppress(ValueError, SyntaxError):
                sections[section][setting] = str(ast.literal_eval(value))
    return sections["global"] | sections["install"] | sections[":env:"]
