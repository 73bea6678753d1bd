"""The meaning of a case file whose structure is sound: names, shapes, values, files. Builds the Case."""

from __future__ import annotations

import fnmatch
import keyword
import math
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gradcheck.case_equations import equations_of
from gradcheck.case_schema import (
    CaseFile,
    Entry,
    EquationsFile,
    ExpectEntry,
    FilledEntry,
    MovedEntry,
    NoiseEntry,
    ObjectiveEntry,
    keys_at,
    leaves,
    shape_of,
)
from gradcheck.case_source import Loc, Source, did_you_mean, shown
from gradcheck.case_step import step_problems
from gradcheck.model import Case, Equation, Expectation, Init, Input, Objective, Placement, Role

ROLES = {
    "sequences": Role.SEQUENCE,
    "carry": Role.CARRY,
    "noise": Role.NOISE,
    "parameters": Role.PARAMETER,
    "constants": Role.CONSTANT,
}
MAX_ENTRIES = 2**31  # of one input: beyond that a check cannot be meant
INTEGER_LIMITS = {"bool": (0, 1), "int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


@dataclass
class Resolver:
    """Checks what one entry alone cannot show, and builds the Case. Problems are noted in `source`."""

    source: Source
    file: CaseFile
    broken: frozenset[str]
    names: dict[str, str] = field(default_factory=dict)  # every input, sound or not -> its section

    def case(self, frameworks: Collection[str]) -> Case:
        source, file = self.source, self.file
        self._check_names()
        inputs = tuple(
            self._input(section, name, entry) for section in ROLES for name, entry in getattr(file, section).items()
        )
        # a stand-in for broken objectives is not in the file
        written = {name: entry for name, entry in file.objectives.items() if name in self._section("objectives")}
        objectives = tuple(self._objective(name, entry) for name, entry in written.items())
        expect = tuple(self._expectation(index, entry) for index, entry in enumerate(file.expect))
        self._check_repeats(("backends",), file.backends or ())
        for group in file.options:
            if group not in frameworks:
                known = did_you_mean(group, frameworks)
                source.report(("options", group), f"unknown framework {group!r}{known}", at_key=True)
        step_file, function = self._step()
        equations, outputs = self._equations()
        case = Case(
            name=file.name,
            path=shown(source.path),
            step_file=step_file,
            step_function=function,
            steps=file.steps,
            seed=file.seed,
            dtype=file.dtype,
            inputs=inputs,
            objectives=objectives,
            backends=None if file.backends is None else tuple(file.backends),
            rtol=file.tolerance.rtol,
            atol=file.tolerance.atol,
            options=file.options,
            expect=expect,
            dims=file.dims,
            equations=equations,
            outputs=outputs,
        )
        self._check_bounds(case)
        return case

    def _check_bounds(self, case: Case) -> None:
        """The values of the inputs that have bounds, once all else is sound."""
        bounded = [] if self.source.problems else [i for i in case.inputs if i.bounds]
        if not bounded:
            return
        from gradcheck import data  # only such cases pay for it

        for target in bounded:
            if problem := data.outside(target, data.filled(case, target)):
                self.source.report((self.names[target.name], target.name, "bounds"), problem)

    def _section(self, name: str) -> dict[str, Any]:
        """A top-level mapping as written, broken entries included, so that a name is not unknown because of them."""
        entries = self.source.data.get(name)
        return entries if isinstance(entries, dict) else {}

    def _check_names(self) -> None:
        for section in (*ROLES, *(key for key in self.source.data if key not in keys_at(()))):
            # the keys of a misspelt section count as declared: one mistake, one message
            for name in self._section(section):
                loc = (section, name)
                if section in ROLES:
                    self._check_identifier(loc, name)
                    if name in self.names:
                        where = f"is already in {self.names[name]!r}: inputs reach the step by name"
                        self.source.report(loc, f"input {name!r} {where}", at_key=True)
                self.names.setdefault(name, section)
        for name in self.file.dims:
            if not name.isidentifier():
                self.source.report(("dims", name), f"dimension {name!r} is not a valid name", at_key=True)

    def _check_identifier(self, loc: Loc, name: str) -> None:
        if name == "xp":
            self.source.report(loc, "'xp' is what every step gets first: name this differently", at_key=True)
        elif not name.isidentifier() or keyword.iskeyword(name):
            self.source.report(loc, f"{name!r} is not a Python name: inputs reach the step by name", at_key=True)

    def _check_repeats(self, loc: Loc, names: Sequence[str]) -> None:
        for index, name in enumerate(names):
            if name in names[:index]:
                self.source.report((*loc, index), f"{name!r} is listed twice")

    def _input(self, section: str, name: str, entry: Entry) -> Input:
        loc = (section, name)
        shape = self._shape(loc, entry)
        dtype: str = self.file.dtype
        placement = None
        if isinstance(entry, NoiseEntry):
            init = Init(entry.draw, a=float(entry.draw == "normal"))
            placement = Placement(entry.placement)
        else:
            assert isinstance(entry, FilledEntry)
            dtype = dtype if entry.dtype in (None, "float") else str(entry.dtype)
            init = entry.init
            if init.file:
                init = replace(init, file=(self.source.path.parent / init.file).absolute())
        bounds = self._bounds(loc, entry.bounds, dtype) if isinstance(entry, MovedEntry) and entry.bounds else None
        result = Input(name, ROLES[section], shape or (), dtype, init, placement, self.source.line(loc), bounds)
        over_time = ROLES[section] is Role.SEQUENCE or placement is Placement.SEQUENCE
        if shape is not None and not (over_time and "steps" in self.broken):
            whole = (self.file.steps, *shape) if over_time else shape
            if math.prod(whole) > MAX_ENTRIES:
                self.source.report((*loc, "shape"), f"input {name!r} would have {math.prod(whole)} entries: too large")
            elif problem := _misfit(result, whole):
                self.source.report((*loc, "init"), problem)
        return result

    def _bounds(self, loc: Loc, bounds: tuple[float, float], dtype: str) -> tuple[float, float] | None:
        """The bounds as numbers of the input's dtype: what is rounded to it stays inside."""
        if not dtype.startswith("float"):
            self.source.report((*loc, "bounds"), f"'bounds' are for inputs that can be moved, {loc[-1]!r} is {dtype}")
            return None
        low, high = (limit if dtype == "float64" else _as_float32(limit) for limit in bounds)
        if not low < high:
            self.source.report((*loc, "bounds"), f"'bounds' leaves no room in {dtype}: both are {low:.9g}")
            return None
        return low, high

    def _shape(self, loc: Loc, entry: Entry) -> tuple[int, ...] | None:
        """Dimensions as numbers; None if one is not known."""
        declared = self._section("dims")
        for index, dim in enumerate(entry.shape):
            if isinstance(dim, str) and dim not in declared and "dims" not in self.broken:
                known = did_you_mean(dim, declared) or ": declare it in `dims`"
                self.source.report((*loc, "shape", index), f"unknown dimension {dim!r}{known}")
        resolved = [dim if isinstance(dim, int) else self.file.dims.get(dim) for dim in entry.shape]
        return tuple(dim for dim in resolved if dim is not None) if None not in resolved else None

    def _objective(self, name: str, entry: ObjectiveEntry) -> Objective:
        loc = ("objectives", name)
        if not name.isprintable() or not name.strip():
            self.source.report(loc, f"{name!r} is not a name for an objective", at_key=True)
        if not entry.of.isidentifier():
            self.source.report((*loc, "of"), f"{entry.of!r} is not the name of a carry or an output")
        if isinstance(entry.at, int) and entry.at >= self.file.steps and "steps" not in self.broken:
            last = f"the last of {self.file.steps} is {self.file.steps - 1}, or write `last`"
            self.source.report((*loc, "at"), f"step {entry.at} does not exist: {last}")
        self._check_repeats((*loc, "wrt"), entry.wrt)
        wrt = [found for index, word in enumerate(entry.wrt) for found in self._wrt((*loc, "wrt", index), word)]
        return Objective(name, entry.of, entry.reduce, entry.at, tuple(dict.fromkeys(wrt)), self.source.line(loc))

    def _wrt(self, loc: Loc, word: str) -> Iterable[str]:
        """The inputs that a word in `wrt` names; a glob names parameters."""
        section = self.names.get(word)
        if section == "constants":
            self.source.report(loc, f"{word!r} is a constant: it is not differentiated")
        elif section == "noise" and word in self.file.noise and self.file.noise[word].placement == "in_step":
            self.source.report(loc, f"{word!r} is drawn in the step: only noise passed in can be differentiated")
        elif section:
            return (word,)
        elif any(character in word for character in "*?["):
            parameters = [name for name, section in self.names.items() if section == "parameters"]
            found = [name for name in parameters if fnmatch.fnmatchcase(name, word)]
            if not found and "parameters" in self.source.data:
                self.source.report(loc, f"no parameter matches {word!r}")
            return found
        else:
            self.source.report(loc, f"unknown input {word!r}{did_you_mean(word, self._differentiable())}")
        return ()

    def _differentiable(self) -> list[str]:
        return [name for name, section in self.names.items() if section != "constants"]

    def _expectation(self, index: int, entry: ExpectEntry) -> Expectation:
        loc = ("expect", index)
        if entry.parameter is not None and entry.parameters is not None:
            self.source.report((*loc, "parameter"), "'parameter' and 'parameters' are the same: give one", at_key=True)
        known = {
            "objective": None if "objectives" in self.broken else list(self._section("objectives")),
            "parameters": self._differentiable(),
            "parameter": self._differentiable(),
        }
        for key, names in known.items():
            for number, word in enumerate(getattr(entry, key) or ()):
                if names is not None and word not in names:
                    what = f"unknown {key.rstrip('s')} {word!r}{did_you_mean(word, names)}"
                    self.source.report((*loc, key, number), what)
        return Expectation(
            backends=tuple(entry.backend or ()),
            objectives=tuple(entry.objective or ()),
            parameters=tuple(entry.parameters or entry.parameter or ()),
            codes=tuple(entry.code or ()),
            reason=entry.reason,
            line=self.source.line(loc),
            orders=(entry.order,) if entry.order else (),
        )

    def _equations(self) -> tuple[tuple[Equation, ...], tuple[str, ...]]:
        return equations_of(self.source, self.file, self.names) if isinstance(self.file, EquationsFile) else ((), ())

    def _step(self) -> tuple[Path, str]:
        if isinstance(self.file, EquationsFile):
            return self.source.path.absolute(), ""
        name, colon, function = self.file.step.rpartition(":")
        file = (self.source.path.parent / name).absolute()
        if "step" in self.broken:
            return file, function
        if not (colon and name and function.isidentifier()):
            self.source.report(("step",), f"'step' is written FILE.py:FUNCTION, not {self.file.step!r}")
            return file, function
        messages, places = step_problems(file, function, [n for n in self.names if n.isidentifier() and n != "xp"])
        for message in messages:
            self.source.report(("step",), message)
        self.source.problems += places
        return file, function


def _as_float32(number: float) -> float:
    """The nearest float32, which may be infinite."""
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return math.copysign(math.inf, number)


def _misfit(target: Input, shape: tuple[int, ...]) -> str | None:
    """Why `init` cannot fill an array of this shape (time included) and of the input's dtype; None if it can."""
    init, limits = target.init, INTEGER_LIMITS.get(target.dtype)
    expected = f"shape {list(shape)}{' (steps first)' if shape != target.shape else ''}"
    match init.kind:
        case "normal" | "uniform" | "glorot" if limits:
            return f"{init.kind!r} gives real numbers, {target.name!r} is {target.dtype}: use {{integers: [low, high]}}"
        case "integers":
            low, high = limits or (-(2**53), 2**53)  # beyond, floats skip whole numbers
            if init.a < low or init.b - 1 > high or init.b > 2**63 - 1:
                return f"{{integers: [{init.a}, {init.b}]}} does not fit into {target.dtype}"
        case "value":
            given = shape_of(init.value)
            if given not in ((), shape):
                return f"'value' has shape {list(given)}, {target.name!r} needs {expected}"
            for number in leaves(init.value):
                if problem := _number_misfit(number, target.dtype):
                    return problem
        case "file":
            return _file_misfit(init, target, shape, expected)
    return None


def _number_misfit(number: bool | int | float, dtype: str) -> str | None:
    limits = INTEGER_LIMITS.get(dtype)
    if dtype == "bool":
        return None if isinstance(number, bool) else f"'value' holds {number!r}, but bool takes true or false"
    if isinstance(number, bool):
        return f"'value' holds {str(number).lower()}, but {dtype} takes numbers"
    if limits and not (isinstance(number, int) and limits[0] <= number <= limits[1]):
        return f"'value' holds {number!r}, which is no {dtype}"
    if isinstance(number, int) and abs(number) > 2**1000:
        return "'value' holds a number that is too large"
    return None


def _file_misfit(init: Init, target: Input, shape: tuple[int, ...], expected: str) -> str | None:
    import numpy as np  # only cases that read arrays pay for it

    assert init.file is not None
    try:
        with init.file.open("rb") as stream:  # opened here: numpy leaves a damaged file open
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                return f"{init.file.name!r} holds one array: save it with numpy.savez and name its key"
            if init.key not in archive.files:
                return f"no array {init.key!r} in {init.file.name!r}{did_you_mean(str(init.key), archive.files)}"
            array = archive[str(init.key)]
    except FileNotFoundError:
        return f"no file {str(shown(init.file))!r}"
    except Exception as problem:  # zipfile, zlib and numpy each have their own words for a damaged file
        return f"{init.file.name!r} cannot be read as npz: {str(problem) or type(problem).__name__}"
    if array.shape != shape:
        return f"{init.key!r} in {init.file.name!r} has shape {list(array.shape)}, {target.name!r} needs {expected}"
    if not np.can_cast(array.dtype, target.dtype, "same_kind"):
        return f"{init.key!r} in {init.file.name!r} is {array.dtype}, {target.name!r} is {target.dtype}"
    return None
