"""Runs uv, which builds the isolated environments, with the settings that a user has for pip.

What fails here and in the modules above becomes one error, GC901. uv itself is imported only by what runs it.
"""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gradcheck.catalog import Backend
from gradcheck.errors import BackendError

ASK_SECONDS = 30  # for an interpreter to start and say what it is
QUOTED_LINES = 8  # of a failed command's output

# these name another interpreter, environment or module than the one that is meant
NOT_FOR_UV = (
    *("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PYTHON_PREFERENCE", "UV_MANAGED_PYTHON", "UV_NO_MANAGED_PYTHON"),
    *("UV_WORKING_DIR", "UV_PROJECT", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"),
)
UV_INDEX_VARIABLES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX_STRATEGY")


def run_uv(backend: Backend, offline: bool, *arguments: str, variables: Mapping[str, str] | None = None) -> None:
    """Run uv for a backend's environment. Raises BackendError with the end of what it printed."""
    flags = ["--no-progress", *(["--offline"] if offline else [])]
    try:
        done = _run([*arguments, *flags], variables or {})
    except FileNotFoundError as error:
        raise failure(backend, "uv, which builds environments, is missing", str(error), "pip install uv") from error
    if done.returncode == 0:
        return
    if offline:
        raise failure(
            backend,
            f"the environment of {backend.name} is not built, and --offline forbids downloading what it needs",
            tail(done.stderr),
            f"gradcheck doctor {backend.name} once with a network, or --python {backend.name}=PATH",
        )
    hint = "see that the package index can be reached (pip's and uv's settings are used)"
    hint += f", then gradcheck doctor {backend.name}; or --python {backend.name}=PATH"
    raise failure(backend, f"cannot build the environment of {backend.name}", tail(done.stderr), hint)


def _run(arguments: Sequence[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    import uv  # here, as only a build needs it

    environ = {name: value for name, value in os.environ.items() if name not in NOT_FOR_UV}
    # from a folder of no project, so that no project's settings apply
    command, environ = [uv.find_uv_bin(), *arguments], {**environ, **variables}
    return subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, errors="replace")


def uv_pythons() -> Path:
    """The folder of the interpreters that uv manages; one that does not exist if uv cannot tell."""
    try:
        return Path(_run(["python", "dir"], {"NO_COLOR": "1"}).stdout.strip() or "/nonexistent")
    except OSError:
        return Path("/nonexistent")


def failure(backend: Backend, message: str, context: str = "", hint: str = "") -> BackendError:
    hint = hint or f"gradcheck doctor {backend.name} --rebuild, or --python {backend.name}=PATH"
    return BackendError(message, context=context, note="the other backends still run", hint=hint, code="GC901")


def tail(text: str) -> str:
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-QUOTED_LINES:])


# --- the settings of pip ----------------------------------------------------------------------------------------------


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


def pip_settings(base: Path) -> dict[str, str]:
    """pip's settings from its files, as far as pip is there to read them, and from the environment, which wins.

    base: the interpreter asked where the running one has no pip.
    """
    listed: dict[str, str] = {}
    for python in dict.fromkeys((Path(sys.executable), base)):
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
