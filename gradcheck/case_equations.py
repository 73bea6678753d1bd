"""The equations of a case file: read with the worker's own reader, so that what is accepted here is what is run there."""

from __future__ import annotations

import keyword
from collections.abc import Mapping

from gradcheck._backends._worker import equations
from gradcheck._backends._worker.names import XP_NAMES
from gradcheck.case_schema import EquationsFile
from gradcheck.case_source import Source, did_you_mean
from gradcheck.model import Equation

EQUATIONS = ("step", "equations")


def equations_of(
    source: Source, file: EquationsFile, inputs: Mapping[str, str]
) -> tuple[tuple[Equation, ...], tuple[str, ...]]:
    """The equations in order and which of them are returned beside the carries; problems are noted in `source`.

    inputs: every name that is declared, sound or not -> its section.
    """
    step = source.data.get("step")
    written = step.get("equations") if isinstance(step, dict) else None
    if not isinstance(written, dict) or not set(file.step.equations) <= set(written):  # a stand-in
        return (), ()
    broken = [name for name, value in written.items() if file.step.equations.get(name) != str(value)]
    found = [Equation(name, *source.laid_out((*EQUATIONS, name))) for name in file.step.equations if name not in broken]
    check_names(source, file, inputs, list(written))
    rows = [equations.Equation(e.name, e.line, e.text) for e in found]
    for fault in equations.read(rows, [*inputs, *broken])[1]:
        source.report_at(fault.line, source.characters(fault.line, fault.column), fault.message)
    return tuple(found), outputs_of(source, file, list(written))


def check_names(source: Source, file: EquationsFile, inputs: Mapping[str, str], written: list[str]) -> None:
    """What the keys are: a carry's new value, or a name of its own."""
    for name, section in inputs.items():
        if name in XP_NAMES and section in source.data:
            what = "is a name of xp, which equations use: name the input differently"
            source.report((section, name), f"{name!r} {what}", at_key=True)
    for name in written:
        loc = (*EQUATIONS, name)
        if name in XP_NAMES:
            source.report(loc, f"{name!r} is a name of xp: name the equation differently", at_key=True)
        elif not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__"):
            source.report(loc, f"{name!r} is not a name that equations can use", at_key=True)
        elif inputs.get(name, "carry") != "carry":
            why = f"is already in {inputs[name]!r}: only a carry has a new value"
            source.report(loc, f"{name!r} {why}", at_key=True)
    for name, section in inputs.items():
        if section == "carry" and name not in written:
            source.report(("carry", name), f"the carry {name!r} has no equation for its new value", at_key=True)


def outputs_of(source: Source, file: EquationsFile, written: list[str]) -> tuple[str, ...]:
    """The equations that an objective or `outputs` names and that are no carries, in order.

    The others are intermediate values and stay inside: what a scan returns changes which of its gradients are right.
    """
    objectives = source.data.get("objectives")
    for name, objective in file.objectives.items():
        known = isinstance(objectives, dict) and name in objectives
        if known and objective.of.isidentifier() and objective.of not in (*written, *file.carry):
            source.report(
                ("objectives", name, "of"), f"no equation {objective.of!r}{did_you_mean(objective.of, written)}"
            )
    for index, name in enumerate(file.step.outputs):
        if name not in written:
            source.report(("step", "outputs", index), f"no equation {name!r}{did_you_mean(name, written)}")
        elif name in file.carry or name in file.step.outputs[:index]:
            source.report(("step", "outputs", index), f"{name!r} is returned anyway")
    named = {objective.of for objective in file.objectives.values()} | set(file.step.outputs)
    return tuple(name for name in file.step.equations if name in named and name not in file.carry)
