"""GC205: a wrong gradient that equals the right one without what comes back through one op.

Where each op's own rule is right and they compose the right gradient, what the backend did with them is not: one way back after
another is left out of the composition, until that is the wrong gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from gradcheck.diagnosis.blame import Inspection, inspected
from gradcheck.diagnosis.counterfactual import remaining_error
from gradcheck.diagnosis.part import Lost, lost_part, pair
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, numbers, step_blame, worst
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Verdict


def lost_branch(scene: Scene) -> Iterable[Claim]:
    for group in by(scene.unexplained(Verdict.MISMATCH), lambda e: e.check.backend):
        found = inspected(scene, group[0].check.backend)
        if not found.composed or found.wrong:
            continue
        composed = [e for e in group if remaining_error(scene, e, found.composed[pair(e)]) is not None]
        lost = looked_for(scene, found, composed) if composed else None
        if lost is not None:
            yield Claim("GC205", list(lost.checks), partial(describe, scene, lost))


def looked_for(scene: Scene, found: Inspection, checks: list[Evidence]) -> Lost | None:
    try:
        with scene.lab.session(scene.case, found.backend, scene.arrays) as session:
            return lost_part(session, checks, found.composed)
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
