"""YAML -> Case. Every problem of a file is found in one go and said with its line and column."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gradcheck.case_native import native_case
from gradcheck.case_resolve import Resolver
from gradcheck.case_schema import CaseFile, EquationsFile, NativeFile, Schema, has_default, keys_at, schema_of
from gradcheck.case_source import Loc, Source, did_you_mean, read, shown
from gradcheck.errors import GradcheckError
from gradcheck.model import Case, Place

FRAMEWORKS = ("theano", "jax", "numpy", "pytensor", "torch")
# stand in for broken top-level values, so that the rest of the file is still checked
PLACEHOLDERS: dict[str, Any] = {
    "name": "unnamed",
    "steps": 1,
    "objectives": {"unnamed": {"of": "x", "wrt": ["*"]}},
}
STEPS: dict[Schema, Any] = {  # in place of a broken step
    CaseFile: "step.py:step",
    EquationsFile: {"equations": {"unnamed": "0"}},
    NativeFile: {"framework": "jax", "build": "step.py:step"},
}
PHRASES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "list_type": "must be a list",
    "finite_number": "must be finite",
}


Misfits = Callable[[Case], Iterable[tuple[Loc, str]]]


class CaseFileError(GradcheckError):
    """All problems of case files, each with its place: exit code 2."""

    def __init__(self, places: tuple[Place, ...]) -> None:
        lines = "\n".join(map(str, places))
        super().__init__(message=lines, hint="`gradcheck schema` prints what a case file may hold")
        self.places = places


def load(
    path: Path,
    frameworks: Collection[str] = FRAMEWORKS,
    misfits: Misfits = lambda case: (),
    text: str | None = None,
) -> Case:
    """Read, check and resolve a case file; the step file is looked at, never run.

    frameworks: the names that may stand under `options`. misfits: what else is wrong with a case, as (where, what); for those
    who know the backends. text: taken for what the file holds, if given. Raises CaseFileError with every problem there is.
    """
    source = read(path, text)
    case = None
    if source.data is not None:
        file, broken = _validated(source)
        if isinstance(file, NativeFile):
            case = native_case(source, file, broken, frameworks)
        elif file is not None:
            case = Resolver(source, file, broken).case(frameworks)
        for place, problem in misfits(case) if case else ():
            source.report(place, problem)
    if case is None or source.problems:
        raise CaseFileError(tuple(sorted(set(source.problems), key=lambda p: (p.path, p.line, p.column, p.message))))
    return case


def collect(paths: Sequence[Path]) -> list[Path]:
    """The case files: files as given; of folders every .yaml and .yml in and below, sorted, without hidden ones.

    A file reached twice is listed once. Raises CaseFileError for paths that do not exist.
    """
    if missing := [path for path in paths if not path.exists()]:
        raise CaseFileError(tuple(Place(str(shown(path)), 0, 0, "no such file or folder") for path in missing))
    found = [file for path in paths for file in (_cases_below(path) if path.is_dir() else [path])]
    return list({file.resolve(): file for file in reversed(found)}.values())[::-1]


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a case file, for editors."""
    either: TypeAdapter[CaseFile | EquationsFile | NativeFile] = TypeAdapter(CaseFile | EquationsFile | NativeFile)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **either.json_schema()}


def _cases_below(folder: Path) -> list[Path]:
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        cases = [name for name in files if name.endswith((".yaml", ".yml")) and not name.startswith(".")]
        found += [Path(here, name) for name in cases]
    return sorted(found)


def _validated(source: Source) -> tuple[CaseFile | NativeFile | None, frozenset[str]]:
    """The file as far as it is sound, and which top-level keys are not; problems are noted in `source`."""
    schema = schema_of(source.data)
    try:
        return schema.model_validate(source.data), frozenset()
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
    remaining = copy.deepcopy(source.data)
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]
    meant = {(*loc[:-1], *get_close_matches(str(loc[-1]), _free_keys(source.data, loc), n=1)) for loc in unknown}
    for error in errors:
        loc = error["loc"]
        if not (error["type"] == "missing" and loc in meant):  # a misspelt key is one mistake, not two
            source.report(loc, _message(error, source.data), at_key=loc in unknown)
        _prune(remaining, loc, loc in unknown)
    broken = frozenset(str(error["loc"][0]) for error in errors if len(error["loc"]) == 1)
    try:
        return schema.model_validate(remaining), broken
    except ValidationError:  # more is wrong than can be cut out: the errors so far are reported
        return None, broken


def _free_keys(data: Any, loc: Loc) -> list[str]:
    """The keys that the unknown key at `loc` may have been meant to be: those that stand not yet beside it."""
    beside = data
    for part in loc[:-1]:
        beside = beside[part]
    return [key for key in keys_at(loc[:-1], schema_of(data)) if key not in beside]


def _message(error: Any, data: Any) -> str:
    """One pydantic error in our words. data: the whole file."""
    loc, kind, given, context = error["loc"], error["type"], error["input"], error.get("ctx", {})
    name = repr(next((part for part in reversed(loc) if isinstance(part, str)), "case"))
    match kind:
        case "value_error":
            return str(context["error"])
        case "extra_forbidden":
            if len(loc) == 1 and schema_of(data) is NativeFile and loc[-1] in keys_at(()):
                return f"{loc[-1]!r} belongs to portable cases: a native model has its own"
            return f"unknown key {loc[-1]!r}{did_you_mean(str(loc[-1]), _free_keys(data, loc))}"
        case "missing":
            return f"missing key {name}"
        case "literal_error" if isinstance(given, str):
            words = re.findall(r"'([^']*)'", context["expected"])
            return f"unknown {name} {given!r}{did_you_mean(given, words)}"
        case "literal_error":
            return f"{name} must be {context['expected']}, not {_brief(given)}"
        case "greater_than_equal":
            return f"{name} must be at least {context['ge']:g}, not {given}"
        case "too_short" | "string_too_short":
            return f"{name} must not be empty"
    phrase = PHRASES.get(kind)
    return f"{name} {phrase}, not {_brief(given)}" if phrase else f"{name}: {error['msg'].lower()}"


def _brief(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(value)[:60]


def _prune(data: dict[str, Any], loc: Loc, extra: bool) -> None:
    """Cut what makes `data` unsound, as little as can be: an unknown or optional key, an entry, else the section."""
    section, schema = str(loc[0]), schema_of(data)
    inside = data.get(section)
    optional = len(loc) > 2 and has_default(section, loc[2], schema)
    way = loc if extra else loc[:3] if optional else loc[:2] if isinstance(inside, dict) else loc[:1]
    if schema is EquationsFile and loc[:2] == ("step", "equations") and len(loc) > 2:
        if isinstance(inside, dict):
            inside["equations"][loc[2]] = "0"  # keeps the name for the others
        return
    if section == "expect" and len(loc) > 1 and isinstance(inside, list) and not (extra or optional):
        inside[int(loc[1])] = {"reason": "stands in for a broken entry"}  # keeps the places of the others
    else:
        parent: Any = data
        for part in way[:-1]:
            parent = (
                parent[int(part)] if isinstance(parent, list) else parent.get(part, {})
            )  # an earlier cut may have it
        parent.pop(way[-1], None)
    placeholders = {**PLACEHOLDERS, "step": STEPS[schema]}
    left = data.get(section)
    if section == "step" and schema is EquationsFile and isinstance(left, dict) and "equations" not in left:
        left = None
    if section in (("name", "step") if schema is NativeFile else placeholders) and (schema is NativeFile or not left):
        data[section] = placeholders[section]
