"""GC205: a wrong gradient that equals the right one without what comes back through one op, or through most of a sum.

Where each op's own rule is right and they compose the right gradient, what the backend did with them is not: one way back after
another is left out of the composition, until that is the wrong gradient. The terms of the objective are measured apart by
differences: the wrong gradient may be that of one index along one axis, or of all indices but one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from gradcheck.diagnosis.blame import Inspection, inspected
from gradcheck.diagnosis.counterfactual import remaining_error
from gradcheck.diagnosis.part import Lost, lost_part, pair
from gradcheck.diagnosis.parts_of_sum import Floats, Measured, Part, measured
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, numbers, step_blame, worst
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Case, Finding, Verdict

SALTS = ("probe", "slice")
PLACES = [
    (axis, index) for axis in range(3) for index in range(8)
]  # of an objective's terms: axes, and indices along each
PARTS: list[Part] = [None, *PLACES]  # the whole, and its slices; those that it does not have are empty


def lost_branch(scene: Scene) -> Iterable[Claim]:
    for group in by(scene.unexplained(Verdict.MISMATCH), lambda e: e.check.backend):
        claims = slices(scene, [e for e in group if "consensus" not in e.notes])
        yield from claims
        claimed = {id(e) for claim in claims for e in claim.checks}
        left = [e for e in group if id(e) not in claimed]
        lost = looked_for(scene, left)
        if lost is not None:
            yield Claim("GC205", list(lost.checks), partial(describe, scene, lost))


def looked_for(scene: Scene, checks: list[Evidence]) -> Lost | None:
    """The part that wrong gradients of one backend lack, where its ops compose the right ones."""
    found = inspected(scene, checks[0].check.backend) if checks else Inspection()
    if not found.composed or found.wrong:
        return None
    composed = [e for e in checks if remaining_error(scene, e, found.composed[pair(e)]) is not None]
    composed += [e for e in scene.checks(Verdict.PASS) if e.check.backend == found.backend]
    try:
        with scene.lab.session(scene.case, found.backend, scene.arrays) as session:
            return lost_part(session, composed, found.composed)
    except BackendError:
        return None


def describe(scene: Scene, lost: Lost, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    part = lost.part
    return finding(
        "GC205",
        checks,
        f"one branch of the gradient is lost: what comes through {(part['made'] or part)['op']}",
        numbers=numbers(shown),
        because=lost.equals(),
        proof="composed of the ops' own rules the gradient agrees with the differences; left out of that composition, this "
        "branch makes it the wrong one",
        help="look for what keeps the cotangent from that op: a mask, a copy of the value, a rule that forgets one of its terms",
        whose="the backend, or what runs the step in it",
        blame=lost.blame or step_blame(scene.case),
    )


# --- a slice of a sum -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slice:
    """One index along one axis of the objective's terms. alone: it is all that the gradient has, else all that it lacks."""

    axis: int
    index: int
    alone: bool
    error: float

    def words(self, case: Case, objective: str) -> str:
        chosen = next(o for o in case.objectives if o.name == objective)
        if chosen.at == "all" and self.axis == 0:
            return f"step {self.index}"
        return f"index {self.index} of axis {self.axis - (chosen.at == 'all')} of {chosen.of}"


def slices(scene: Scene, group: list[Evidence]) -> list[Claim]:
    """The others are looked at only if the worst one is a slice."""
    if not group or scene.case.native or (lead := slice_of(scene, worst(group))) is None:
        return []
    same = [e for e in group if e is worst(group) or fits(scene, e, lead)]
    return [Claim("GC205", same, partial(describe_slice, scene, lead))]


def slice_of(scene: Scene, evidence: Evidence) -> Slice | None:
    """The first slice, or complement of one, that the wrong gradient equals along two directions."""
    first = measured(scene, evidence, PARTS, SALTS[0], singly=False)
    if first is None:
        return None
    for alone in (True, False):
        for axis, index in PLACES:
            if is_slice(first, axis, index, alone):
                second = measured(scene, evidence, PARTS, SALTS[1], singly=False)
                if second is not None and is_slice(second, axis, index, alone):
                    kept = weights(axis, index, alone)
                    return Slice(axis, index, alone, max(first.relative(kept), second.relative(kept)))
    return None


def fits(scene: Scene, evidence: Evidence, found: Slice) -> bool:
    own = measured(scene, evidence, PARTS, SALTS[0], singly=False)
    right = float(own.value[0, 0]) if own is not None else 0.0
    return own is not None and own.equals(weights(found.axis, found.index, found.alone), right, known_elsewhere=True)


def is_slice(found: Measured, axis: int, index: int, alone: bool) -> bool:
    """Whether a slice explains the gradient. It contributes something: else the gradient would be zero, or the right one."""
    number, right = 1 + PLACES.index((axis, index)), float(found.value[0, 0])
    there = abs(float(found.value[number, 0])) > 100 * (float(found.bound[number, 0]) + found.granted)
    return there and found.equals(weights(axis, index, alone), right)


def weights(axis: int, index: int, alone: bool) -> Floats:
    """Of the whole objective (the first part) and its slices: this slice, or the whole without it. float64[parts, 1]."""
    kept = np.zeros((len(PARTS), 1))
    kept[1 + PLACES.index((axis, index))] = 1.0 if alone else -1.0
    kept[0] = 0.0 if alone else 1.0
    return kept


def describe_slice(scene: Scene, found: Slice, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    place = found.words(scene.case, shown.check.objective)
    because = f"it equals what the objective's terms at {place} give alone: the sum over the others is missing"
    if not found.alone:
        because = f"it equals what all terms of the objective give but those at {place}, which are left out of the sum"
    return finding(
        "GC205",
        checks,
        f"the gradient is that of {place} alone" if found.alone else f"the gradient lacks what {place} contributes",
        numbers=numbers(shown),
        because=because,
        proof="the terms of the objective were measured apart, by differences: these give the wrong gradient along two random "
        f"directions, to {found.error:.0e}",
        help="look for an index where a sum is meant, or a sum over all but one, on the way back",
        whose="the step, or the backend",
        blame=step_blame(scene.case),
    )
