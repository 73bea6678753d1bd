"""[tool.gradcheck] of pyproject.toml and the command line's options, made into Settings."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradcheck.catalog import suggest
from gradcheck.errors import UsageError
from gradcheck.pipeline import Settings
from gradcheck.selection import Selection
from gradcheck.workers import Limits

KEYS: dict[str, Any] = {
    "backends": list,
    "cases": list,
    "python": dict,
    "timeout": (int, float),
    "diagnose_seconds": (int, float),
    "memory": (int, float),
    "jobs": int,
    "strict": bool,
    "backend_folders": list,
}


def configuration(start: Path | None = None) -> tuple[dict[str, Any], Path]:
    """The table [tool.gradcheck] of the nearest pyproject.toml at or above `start`, and its folder. Raises UsageError."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        path = folder / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("gradcheck", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise UsageError(f"cannot read {path}", context=str(error)) from error
        for key, value in table.items():
            if key not in KEYS:
                raise UsageError(f"{path}: [tool.gradcheck] has no key '{key}'{suggest(key, KEYS)}")
            if not isinstance(value, KEYS[key]) or (KEYS[key] is not bool and isinstance(value, bool)):
                raise UsageError(
                    f"{path}: [tool.gradcheck] {key} has the wrong type", hint=f"it takes a {type_name(KEYS[key])}"
                )
        return table, folder
    return {}, here


def type_name(kind: Any) -> str:
    return (
        "number"
        if isinstance(kind, tuple)
        else {list: "list", dict: "table", int: "whole number", bool: "true or false"}[kind]
    )


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
    table, folder = configuration(start)
    python = {name: folder / Path(path).expanduser() for name, path in table.get("python", {}).items()} | dict(
        options["python"]
    )
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
        python=python,
        extra_backends=(*options["folders"], *(folder / f for f in table.get("backend_folders", ()))),
    )
    return settings, case_paths(paths, table, folder)


def case_paths(paths: tuple[Path, ...], table: Mapping[str, Any], folder: Path) -> list[Path]:
    """What the user named, else what the configuration names, else cases/ (nothing, if there is no such folder)."""
    if paths:
        return list(paths)
    return [folder / p for p in table.get("cases", ())] or [p for p in [Path("cases")] if p.exists()]
