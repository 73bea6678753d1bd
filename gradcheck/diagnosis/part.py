"""A part of a graph whose contribution is all that a wrong gradient lacks: found by leaving out one way back after another.

The gradient is composed op by op, and one input of one op gets nothing. Entry by entry that has to be the wrong gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradcheck.diagnosis.scene import line_blame, relative, worst
from gradcheck.evidence import Evidence
from gradcheck.model import Blame, Gradient, Verdict
from gradcheck.session import Session

MOST = 100  # ways that are left out in turn
SAME = {"float64": 1e-7, "float32": 1e-4}  # of the largest entry: how equal two gradients have to be
APART = 100.0  # times that: how far the right one has to be
Gradients = Mapping[tuple[str, str], Gradient]


@dataclass(frozen=True)
class Lost:
    """part: as the backend tells it. checks: the wrong gradients that equal the right ones without it, to `error`."""

    part: dict[str, Any]
    checks: tuple[Evidence, ...]
    error: float

    def explains(self, evidence: Evidence) -> bool:
        return any(e is evidence for e in self.checks)

    @property
    def words(self) -> str:
        """The part, as what a contribution comes through."""
        part, made = self.part, self.part["made"]
        into = f"input {part['input']} of {part['op']} at {place(part)}"
        return f"{made['op']} at {place(made)} ({into})" if made and made["file"] else into

    def equals(self) -> str:
        return f"entry by entry, to {self.error:.0e}, the gradient is the right one without what comes through {self.words}"

    @property
    def blame(self) -> Blame | None:
        made = self.part["made"]
        told = made if made and made["file"] else self.part
        if not told["file"]:
            return None
        found = line_blame(told["file"], told["line"], told["op"])
        text = found.text if found else "(this line is not on disk)"
        return Blame(relative(told["file"]), told["line"], told["column"] or None, told["op"], text)


def place(told: Mapping[str, Any]) -> str:
    return f"{Path(told['file']).name}:{told['line']}" if told["file"] else "a place that is not known"


def lost_part(
    session: Session, checks: Sequence[Evidence], right: Gradients, inside: Sequence[int] = ()
) -> Lost | None:
    """The part that the wrong ones of these gradients lack and that leaves those that pass as they are; looked for within the
    functions `inside`, if there are any, else everywhere.

    right: the same gradients as they should be. What is nearest to the objective is tried first.
    """
    there = [e for e in checks if e.gradient.array is not None and right[pair(e)].array is not None]
    known = [e for e in there if e.check.verdict is Verdict.MISMATCH]
    if not known or not session.can("parts"):
        return None
    passing = [e for e in there if e.check.verdict is Verdict.PASS]
    parts = session.parts(inside)
    tried = [number for number, part in enumerate(parts) if part["inner"] or not inside]
    shown = worst(known)
    for number in tried[::-1][:MOST]:
        changes = {"inside": list(inside), "lost": [number]}
        if difference(shown, session.composed(**changes, objectives=[shown.check.objective]), right) is None:
            continue
        every = session.composed(**changes)
        if any(distance(e, every[pair(e)]) > SAME[str(e.check.dtype)] for e in passing):
            continue  # more is lost with this part than is missing
        errors = {id(e): difference(e, every, right) for e in known}
        found = tuple(e for e in known if errors[id(e)] is not None)
        return Lost(parts[number], found, max(errors[id(e)] or 0.0 for e in found))
    return None


def distance(evidence: Evidence, other: Gradient) -> float:
    """How far another gradient is from the one that a check is about, relative to its largest entry."""
    own = evidence.gradient.array
    if own is None or other.array is None:
        return 0.0
    largest = float(np.abs(own).max(initial=0.0))
    error = float(np.abs(own - other.array).max(initial=0.0))
    return error / largest if largest else error


def difference(evidence: Evidence, other: Gradients, right: Gradients) -> float | None:
    """How far another gradient is from the wrong one, relative to the largest entry; None if it is not that one, or if the
    right one is as near.
    """
    wrong, one, good = evidence.gradient.array, other[pair(evidence)].array, right[pair(evidence)].array
    if wrong is None or one is None or good is None or not one.shape == wrong.shape == good.shape:
        return None
    largest = max(float(np.abs(good).max(initial=0.0)), float(np.abs(wrong).max(initial=0.0)))
    same = SAME[str(evidence.check.dtype)] * largest
    error = float(np.abs(wrong - one).max(initial=0.0))
    if not error <= same or not float(np.abs(good - one).max(initial=0.0)) > APART * same:
        return None
    return error / largest


def pair(evidence: Evidence) -> tuple[str, str]:
    return evidence.check.objective, evidence.check.parameter
