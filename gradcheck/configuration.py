"""[tool.gradcheck] of pyproject.toml and the command line's options, made into Settings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradcheck.case_source import shown
from gradcheck.catalog import suggest
from gradcheck.errors import UsageError
from gradcheck.pipeline import Settings
from gradcheck.selection import Selection
from gradcheck.workers import Limits

FILE = "pyproject.toml"
HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < float("inf")


def _not_negative(value: Any) -> bool:
    return _positive(value) or (type(value) in (int, float) and value == 0)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _paths(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(path, str) and path for path in value.values())


KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {  # key -> (what it takes, in code and in words)
    "backends": (_texts, 'a list of names, such as ["jax-scan", "unroll"]'),
    "cases": (_texts, 'a list of files and folders, such as ["models/cases"]'),
    "backend_folders": (_texts, 'a list of folders, such as ["tools/backends"]'),
    "python": (_paths, 'a table of interpreters, such as {theano = "envs/theano/bin/python"}'),
    "timeout": (_positive, "a positive number of seconds"),
    "diagnose_seconds": (_not_negative, "a number of seconds, 0 for no diagnosis"),
    "memory": (_positive, "a positive number of GB"),
    "jobs": (lambda value: type(value) is int and value > 0, "a positive whole number"),
    "strict": (lambda value: isinstance(value, bool), "true or false"),
}


@dataclass(frozen=True)
class Configuration:
    """The table [tool.gradcheck], checked, and where it stands. Paths in it are relative to its folder."""

    table: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = field(default_factory=Path.cwd)

    def backend_folders(self, named: Iterable[Path] = ()) -> tuple[Path, ...]:
        """Where further backends are: what the user named, then what the table says."""
        return (*named, *(self.folder / path for path in self.table.get("backend_folders", ())))

    def interpreters(self, named: Mapping[str, Path] | None = None) -> dict[str, Path]:
        """Framework -> interpreter: the table's, unless the user named another one."""
        configured = self.table.get("python", {})
        return {name: self.folder / Path(path).expanduser() for name, path in configured.items()} | dict(named or {})

    def case_paths(self, named: Sequence[Path]) -> list[Path]:
        """What the user named, else what the table names, else cases/ (nothing, if there is no such folder)."""
        if named:
            return list(named)
        return [self.folder / p for p in self.table.get("cases", ())] or [p for p in [Path("cases")] if p.exists()]


def configuration(start: Path | None = None) -> Configuration:
    """The table [tool.gradcheck] of the nearest pyproject.toml at or above `start`. Raises UsageError, with the place."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        path = folder / FILE
        if path.is_file():
            return Configuration(_checked(path), folder)
    return Configuration({}, here)


def _checked(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        tool = tomllib.loads(text).get("tool", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"cannot read {shown(path)}", context=str(error)) from error
    table = tool.get("gradcheck", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise UsageError(f"{shown(path)}: tool.gradcheck is no table", hint="it is written [tool.gradcheck]")
    for key, value in table.items():
        if key not in KEYS:
            raise UsageError(
                f"{_place(path, text, key)}: [tool.gradcheck] has no key '{key}'{suggest(key, KEYS)}",
                hint=f"there is {', '.join(KEYS)}",
            )
        fits, takes = KEYS[key]
        if not fits(value):
            raise UsageError(f"{_place(path, text, key)}: [tool.gradcheck] {key} takes {takes}, not {value!r}")
    return table


def _place(path: Path, text: str, key: str) -> str:
    """path:line:column of a key of the table, or the path if it is written in some other way."""
    inside, header = False, ""
    for number, line in enumerate(text.splitlines(), 1):
        if found := HEADER.match(line):
            header = re.sub(r"""["'\s]""", "", found[1])
            inside = header == "tool.gradcheck"
            if header == f"tool.gradcheck.{key}" or header.startswith(f"tool.gradcheck.{key}."):
                return f"{shown(path)}:{number}:{line.index('[') + 1}"
        elif inside and (entry := re.match(rf"""\s*(["']?){re.escape(key)}\1\s*[.=]""", line)):
            return f"{shown(path)}:{number}:{len(entry[0]) - len(entry[0].lstrip()) + 1}"
    return str(shown(path))


UNSAID: dict[str, Any] = {
    **dict.fromkeys(("seed", "rtol", "atol", "jobs", "timeout", "memory", "diagnose_seconds")),
    **dict.fromkeys(("fail_fast", "strict", "no_expect", "self_test", "offline"), False),
    **{"backends": (), "expression": "", "order": 1, "python": {}, "folders": ()},
}


def settings_from(
    options: Mapping[str, Any], paths: tuple[Path, ...] = (), start: Path | None = None
) -> tuple[Settings, list[Path]]:
    """The options first (those of UNSAID, where they are given), then the configuration, then the defaults.

    start: where the configuration is looked for, instead of the working directory.
    """
    options = {**UNSAID, **options}
    configured = configuration(start)
    table = configured.table
    default_timeout = float(table.get("timeout", 300.0))
    memory = options["memory"] or table.get("memory")
    seconds = options["diagnose_seconds"]
    settings = Settings(
        backends=tuple(options["backends"]),
        default_backends=tuple(table.get("backends", ())),
        select=Selection(options["expression"]),
        seed=options["seed"],
        rtol=options["rtol"],
        atol=options["atol"],
        jobs=options["jobs"] or table.get("jobs"),
        limits=Limits(options["timeout"] if options["timeout"] is not None else default_timeout, memory),
        fail_fast=options["fail_fast"],
        strict=options["strict"] or table.get("strict", False),
        use_expect=not options["no_expect"],
        self_test=options["self_test"],
        order=options["order"],
        diagnose_seconds=table.get("diagnose_seconds") if seconds is None else seconds,
        offline=options["offline"],
        python=configured.interpreters(options["python"]),
        extra_backends=configured.backend_folders(options["folders"]),
    )
    return settings, configured.case_paths(paths)
