"""Asks interpreters what they are, finds those of the machine, and chooses the one to build an environment from."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from gradcheck.catalog import Backend
from gradcheck.errors import BackendError
from gradcheck.uv_tool import ASK_SECONDS, failure, run_uv, tail, uv_pythons

PROBE_SECONDS = 120
SYSTEM_FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")  # searched for interpreters even if not on PATH

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What an interpreter says of itself. base: the one it is an environment of, or itself; without symlinks."""

    path: Path
    version: str
    base: Path
    versions: dict[str, str] = field(default_factory=dict)
    distributions: tuple[str, ...] = ()  # the metadata folders of `versions`, relative to the environment


# --- asking one -------------------------------------------------------------------------------------------------------

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


def ask(python: Path, names: Iterable[str] = (), *, isolated: bool = False) -> Interpreter | str:
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
        return tail(error.stderr) or f"it exits with {error.returncode}"
    except subprocess.TimeoutExpired:
        return f"no answer within {ASK_SECONDS} s"
    except OSError as error:
        return error.strerror or str(error)
    except (ValueError, KeyError, TypeError):
        return "it does not answer as a Python interpreter does"


def run_probe(backend: Backend, python: Path, *, isolated: bool) -> str:
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
    return "" if done.returncode == 0 else tail(done.stdout) or f"it exits with {done.returncode}"


def names_of(backend: Backend) -> list[str]:
    """The distributions whose versions matter, each once, the framework first."""
    names: dict[str, str] = {}
    for name in (backend.framework, *(Requirement(text).name for text in (*backend.requires, *backend.pins))):
        names.setdefault(canonicalize_name(name), name)
    return list(names.values())


def find_misfit(backend: Backend, interpreter: Interpreter) -> str:
    """What keeps an interpreter from running a backend, one line each; "" if nothing does."""
    if not in_range(backend, interpreter.version):
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


def in_range(backend: Backend, version: str) -> bool:
    return SpecifierSet(backend.python).contains(version, prereleases=True)


# --- the interpreter a user names, and the running one ----------------------------------------------------------------


def given_interpreter(backend: Backend, given: Path) -> Interpreter:
    """The interpreter that a user names, by its path or by its environment's folder."""
    python = given.expanduser().absolute()  # not resolved: a virtual environment's interpreter is a symlink
    if python.is_dir():
        python = python / "bin" / "python"
    hint = f"name an interpreter that has them, or leave out --python {backend.name}=... and gradcheck builds one"
    if not python.exists():
        raise failure(backend, f"there is no interpreter {python}", hint=hint)
    if not os.access(python, os.X_OK):
        raise failure(backend, f"{python} cannot be run: it is not executable", hint=hint)
    answer = ask(python, names_of(backend))
    if isinstance(answer, str):
        raise failure(backend, f"{python} is not a Python interpreter that works", answer, hint)
    if misfit := find_misfit(backend, answer):
        missing = " ".join(f"'{requirement}'" for requirement in backend.requires)
        if in_range(backend, answer.version):
            hint = f"{python} -m pip install {missing}\n{hint}"
        raise failure(backend, f"{python} does not have what {backend.name} requires", misfit, hint)
    return answer


def running_interpreter(backend: Backend) -> Interpreter:
    versions = {}
    for name in names_of(backend):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return Interpreter(Path(sys.executable), _running_version(), _running_base_path(), versions)


def running_base() -> Interpreter:
    return Interpreter(_running_base_path(), _running_version(), _running_base_path())


def _running_version() -> str:
    return "{}.{}.{}".format(*sys.version_info)  # platform.python_version() may end in a "+" that is no version


def _running_base_path() -> Path:
    """The interpreter that the running one is an environment of, or itself: what outlives a virtual environment."""
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return (base if base.exists() else Path(sys.executable)).resolve()


# --- interpreters to build from ---------------------------------------------------------------------------------------


def choose_base(backend: Backend, offline: bool, progress: Progress) -> Interpreter:
    """The interpreter to build from: the running one if it fits, else one of this machine, else a downloaded one."""
    running = running_base()
    if in_range(backend, running.version):
        return running
    if found := _installed(backend):
        return found
    missing = f"{backend.name} needs Python {backend.python}, which is not on this machine"
    hint = f"install one (uv python install '{backend.python}'), or --python {backend.name}=PATH"
    if offline:
        raise failure(backend, missing, "--offline forbids downloading one", hint)
    progress(f"{backend.name}: downloading Python {backend.python}, as none of this machine fits")
    try:  # without links to it in a folder of the user's
        run_uv(backend, offline, "python", "install", backend.python, variables={"UV_PYTHON_INSTALL_BIN": "0"})
    except BackendError as error:
        raise failure(backend, f"{missing} and cannot be downloaded", error.context, hint) from error
    if found := _installed(backend):
        return found
    raise failure(backend, missing, "one was downloaded, but is not to be found", hint)


def _installed(backend: Backend) -> Interpreter | None:
    """The newest interpreter of this machine that fits. Each is started: a name may be a shim that leads nowhere."""
    for minor, path in sorted(_candidates(), key=lambda candidate: -candidate[0]):  # stable: else as searched
        if in_range(backend, f"3.{minor}.0") or in_range(backend, f"3.{minor}.99"):
            answer = ask(path, isolated=True)
            if not isinstance(answer, str) and in_range(backend, answer.version):
                return Interpreter(answer.base, answer.version, answer.base)
    return None


def _candidates() -> Iterator[tuple[int, Path]]:
    """(minor version, path) of what looks like an interpreter by its name."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    folders = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    folders += map(Path, SYSTEM_FOLDERS)
    folders += pyenv.glob("versions/*/bin")
    folders += uv_pythons().glob("*/bin")
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(OSError):
            for path in sorted(folder.glob("python3.*")):
                if name := re.fullmatch(r"python3\.(\d+)", path.name):
                    yield int(name[1]), path
