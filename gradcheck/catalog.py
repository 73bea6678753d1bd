"""Finds the backends: reads their manifests (backend.toml), never imports them.

A manifest is looked for in the folders that come with gradcheck, in the entry points of group `gradcheck.backends`, and
in the folders a user names. TOML and hand-written checks only: this runs at every start, so it has to be quick.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from gradcheck._backends._worker.names import CONSTANTS, XP_NAMES
from gradcheck.errors import GradcheckError, UsageError

MANIFEST = "backend.toml"
ENTRY_POINTS = "gradcheck.backends"
ROLLOUTS = ("scan", "unroll")
DTYPE = "dtype"  # among process_options: the dtype of a case needs a process of its own (Theano's floatX)


@dataclass(frozen=True, slots=True)
class Option:
    """A case option of a backend. choices: () if open; rollouts: the ones that have it, () if all do."""

    default: Any
    choices: tuple[Any, ...] = ()
    rollouts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Backend:
    """One manifest.

    framework: the distribution whose version is reported; python: range of versions; requires: ranges that are accepted
    in an existing environment; pins: what an isolated environment is built from; probe: a program that fails if the
    framework is not healthy; process_options: options that hold for a whole process; rollouts: name as the user gives
    it -> scan or unroll; env: variables of the worker; default: one of the backends of a case that names none; native: whether it
    takes native cases; owns: the modules whose objects are this framework's; xp: the names that its xp has, if not all;
    stored_draws: how a step of this framework draws so that the scan keeps the draw, in words.
    """

    name: str
    framework: str
    folder: Path
    python: str
    requires: tuple[str, ...]
    rollouts: dict[str, str]
    pins: tuple[str, ...] = ()
    probe: str = ""
    process_options: tuple[str, ...] = ()
    options: dict[str, Option] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    default: bool = False
    native: bool = False
    xp: tuple[str, ...] = XP_NAMES
    owns: tuple[str, ...] = ()
    stored_draws: str = ""


def load_backends(extra: Sequence[Path] = ()) -> dict[str, tuple[Backend, str]]:
    """Rollout backend name (theano-scan) -> (its manifest, its rollout), sorted by folder within each source.

    extra: folders with a manifest, or folders of such folders. Raises GradcheckError naming file and key.
    """
    return _indexed([*_shipped(), *_registered(), *(found for folder in extra for found in _named(folder))])


def load_only(folder: Path) -> dict[str, tuple[Backend, str]]:
    """As load_backends, of what a folder holds and of nothing else: others may have the same names."""
    return _indexed(_named(folder))


def _indexed(folders: Iterable[Path]) -> dict[str, tuple[Backend, str]]:
    backends = [read_manifest(folder) for folder in dict.fromkeys(folder.resolve() for folder in folders)]
    known: dict[str, tuple[Backend, str]] = {}
    groups: dict[str, Backend] = {}
    for backend in backends:
        if (other := groups.setdefault(backend.name, backend)) is not backend:
            raise _bad(backend.folder, "name", f"{backend.name!r} is also the name of {other.folder / MANIFEST}")
        for name, rollout in backend.rollouts.items():
            if name in known:
                taken = known[name][0].folder / MANIFEST
                raise _bad(backend.folder, f"rollouts.{name}", f"this name is taken by {taken}")
            known[name] = (backend, rollout)
    return known


def check_options(
    case_options: Mapping[str, Mapping[str, Any]], backends: Mapping[str, tuple[Backend, str]]
) -> list[tuple[tuple[str, ...], str]]:
    """What is wrong with the `options` of a case, given what `load_backends` found: (where in the file, what), [] if nothing."""
    groups = {backend.name: backend for backend, _ in backends.values()}
    problems: list[tuple[tuple[str, ...], str]] = []
    for group, chosen in case_options.items():
        if group not in groups:
            problems.append((("options", group), f"unknown group of options {group!r}{suggest(group, groups)}"))
            continue
        options = groups[group].options
        for name, value in chosen.items():
            place = ("options", group, name)
            if name not in options:
                problems.append((place, f"{group} has no option {name!r}{suggest(name, options)}"))
            elif why := _unfit(value, options[name]):
                problems.append((place, f"option {name!r} of {group}: {why}"))
    return problems


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown word: what was meant, else what there is."""
    known = list(known)
    if close := difflib.get_close_matches(word, known, n=1):
        return f", did you mean {close[0]!r}?"
    return f" (there is {', '.join(known)})" if known else " (there is none)"


def _unfit(value: Any, option: Option) -> str:
    """Why a value does not do for an option, "" if it does."""
    if option.choices and value not in option.choices:
        return f"{value!r} is not possible{suggest(str(value), map(str, option.choices))}"
    wanted = type(option.default)
    # type() and not isinstance: True is no number here; but a whole number does as a float
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        return f"{value!r} is not of type {wanted.__name__}"
    return ""


# --- where manifests are ----------------------------------------------------------------------------------------------


def _shipped() -> list[Path]:
    return _inside(Path(str(files("gradcheck._backends"))))


def _inside(folder: Path) -> list[Path]:
    return sorted(manifest.parent for manifest in folder.glob(f"*/{MANIFEST}"))


def _named(folder: Path) -> list[Path]:
    found = [folder] if (folder / MANIFEST).is_file() else _inside(folder)
    if not found:
        lacks = f"neither it nor a folder in it has a {MANIFEST}"
        raise UsageError(
            f"no backend in {folder}",
            context=lacks if folder.is_dir() else "the folder does not exist",
            hint=f"name a folder that holds a {MANIFEST}, or a folder of such folders",
        )
    return found


def _registered() -> Iterator[Path]:
    for point in metadata.entry_points(group=ENTRY_POINTS):
        found = next((place for place in _places(point) if (place / MANIFEST).is_file()), None)
        if found is None:
            raise GradcheckError(
                f"the entry point {point.name!r} of {ENTRY_POINTS} names {point.value!r}, which has no {MANIFEST}",
                context=f"from {point.dist.name} {point.dist.version}" if point.dist else "",
                hint=f"its value has to be a package whose folder holds a {MANIFEST}, and the file has to be installed",
            )
        yield found


def _places(point: metadata.EntryPoint) -> Iterator[Path]:
    """Where the folder of an entry point's package may be. Looking up its top-level name imports nothing."""
    top, *rest = point.module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        spec = None
    for location in (spec and spec.submodule_search_locations) or ():
        yield Path(location, *rest)
    for file in (point.dist and point.dist.files) or ():  # where a package is mapped to another folder
        if file.parts[-len(rest) - 2 :] == (top, *rest, MANIFEST):
            yield Path(str(file.locate())).parent


# --- what they say ----------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> Backend:
    """Read and check one manifest. Raises GradcheckError naming file and key."""
    file = folder / MANIFEST
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: neither TOML nor UTF-8
        raise GradcheckError(f"{file}: cannot be read", context=str(error)) from error
    for key in table:
        if key not in _KEYS:
            raise _bad(folder, key, f"unknown key{suggest(key, _KEYS)}")
    values: dict[str, Any] = {}
    for key, (read, required) in _KEYS.items():
        if key in table:
            try:
                values[key] = read(table[key])
            except (ValueError, InvalidSpecifier, InvalidRequirement) as error:
                raise _bad(folder, key, str(error)) from error
        elif required:
            raise _bad(folder, key, "is missing")
    if "pins" in values:
        values["pins"] = _pins(folder, values["pins"])
    backend = Backend(folder=folder, **values)
    for name in backend.process_options:
        if name != DTYPE and name not in backend.options:
            raise _bad(folder, "process_options", f"there is no option {name!r}{suggest(name, backend.options)}")
    return backend


def _bad(folder: Path, key: str, why: str) -> GradcheckError:
    return GradcheckError(f"{folder / MANIFEST}: {key}: {why}", hint="backends/README.md describes the keys")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list")
    return tuple(map(_text, value))


def _names(value: Any) -> tuple[str, ...]:
    for name in _texts(value):
        if name not in XP_NAMES:
            raise ValueError(f"xp guarantees no {name!r}{suggest(name, XP_NAMES)}")
    return tuple(name for name in XP_NAMES if name in value or name in CONSTANTS)


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a table")
    return value


def _python(value: Any) -> str:
    return str(SpecifierSet(_text(value))) and _text(value)


def _requires(value: Any) -> tuple[str, ...]:
    return tuple(text for text in _texts(value) if Requirement(text))


def _rollouts(value: Any) -> dict[str, str]:
    for name, rollout in _table(value).items():
        if rollout not in ROLLOUTS:
            raise ValueError(f"{name} = {rollout!r}: neither 'scan' nor 'unroll'")
    if not value:
        raise ValueError("is empty")
    return dict(value)


def _env(value: Any) -> dict[str, str]:
    for name, text in _table(value).items():
        if not isinstance(text, str):
            raise ValueError(f"{name} = {text!r} is not a text")
    return dict(value)


def _options(value: Any) -> dict[str, Option]:
    return {name: _option(name, _table(settings)) for name, settings in _table(value).items()}


def _option(name: str, settings: dict[str, Any]) -> Option:
    known = ("default", "choices", "rollouts")
    for key in settings:
        if key not in known:
            raise ValueError(f"{name}: unknown key {key!r}{suggest(key, known)}")
    if "default" not in settings:
        raise ValueError(f"{name}: has no default")
    for key in ("choices", "rollouts"):
        if not isinstance(settings.get(key, []), list):
            raise ValueError(f"{name}: {key} is not a list")
    option = Option(settings["default"], tuple(settings.get("choices", ())), tuple(settings.get("rollouts", ())))
    if why := _unfit(option.default, option):
        raise ValueError(f"{name}: default {why}")
    for rollout in option.rollouts:
        if rollout not in ROLLOUTS:
            raise ValueError(f"{name}: rollout {rollout!r} is neither 'scan' nor 'unroll'")
    return option


def _pins(folder: Path, name: str) -> tuple[str, ...]:
    """The lines of a requirements file. Exact versions only: an environment is the same whenever it is built."""
    try:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise _bad(folder, "pins", f"{name} cannot be read: {error.strerror}") from error
    pins = tuple(pin for line in lines if (pin := line.partition("#")[0].strip()))
    for pin in pins:
        try:
            exact = [clause.operator for clause in Requirement(pin).specifier] == ["=="]
        except InvalidRequirement:
            exact = False
        if not exact:
            raise _bad(folder, "pins", f"{name}: {pin!r} is not of the form name==version")
    return pins


_KEYS: dict[str, tuple[Callable[[Any], Any], bool]] = {  # key -> (its reader, whether it is required)
    "name": (_text, True),
    "framework": (_text, True),
    "python": (_python, True),
    "requires": (_requires, True),
    "rollouts": (_rollouts, True),
    "pins": (_text, False),
    "probe": (_text, False),
    "process_options": (_texts, False),
    "options": (_options, False),
    "env": (_env, False),
    "default": (_flag, False),
    "native": (_flag, False),
    "xp": (_names, False),
    "owns": (_texts, False),
    "stored_draws": (_text, False),
}
