"""A native case file whose structure is sound -> Case. What its model holds is known only once a worker has built it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from gradcheck.case_schema import NativeFile
from gradcheck.case_source import Source, did_you_mean, shown
from gradcheck.case_step import build_problems
from gradcheck.model import Case, Expectation


def native_case(source: Source, file: NativeFile, broken: frozenset[str], frameworks: Collection[str]) -> Case:
    """The Case, without inputs and objectives; problems are noted in `source`. The build file is looked at, never run."""
    for group in file.options:
        if group not in frameworks:
            known = did_you_mean(group, frameworks)
            source.report(("options", group), f"unknown framework {group!r}{known}", at_key=True)
    path, function = build_function(source, file, broken)
    return Case(
        name=file.name,
        path=shown(source.path),
        step_file=path,
        step_function=function,
        steps=1,
        seed=file.seed,
        dtype=file.dtype,
        inputs=(),
        objectives=(),
        backends=None if file.backends is None else tuple(file.backends),
        rtol=file.tolerance.rtol,
        atol=file.tolerance.atol,
        options=file.options,
        expect=expectations(source, file),
        native_dtype=file.dtype,
        native=file.step.framework,
        wrt=tuple(file.wrt or ()),
    )


def expectations(source: Source, file: NativeFile) -> tuple[Expectation, ...]:
    """The `expect` entries; what they name is the model's own and is not looked up."""
    found = []
    for index, entry in enumerate(file.expect):
        loc = ("expect", index)
        if entry.parameter is not None and entry.parameters is not None:
            source.report((*loc, "parameter"), "'parameter' and 'parameters' are the same: give one", at_key=True)
        found.append(
            Expectation(
                backends=tuple(entry.backend or ()),
                objectives=tuple(entry.objective or ()),
                parameters=tuple(entry.parameters or entry.parameter or ()),
                codes=tuple(entry.code or ()),
                reason=entry.reason,
                line=source.line(loc),
            )
        )
    return tuple(found)


def build_function(source: Source, file: NativeFile, broken: frozenset[str]) -> tuple[Path, str]:
    name, colon, function = file.step.build.rpartition(":")
    path = (source.path.parent / name).absolute()
    written = source.data["step"] if isinstance(source.data.get("step"), dict) else {}
    if "step" in broken or written.get("build") != file.step.build:
        return path, function
    if not (colon and name and function.isidentifier()):
        source.report(("step", "build"), f"'build' is written FILE.py:FUNCTION, not {file.step.build!r}")
        return path, function
    messages, places = build_problems(path, function)
    for message in messages:
        source.report(("step", "build"), message)
    source.problems += places
    return path, function
