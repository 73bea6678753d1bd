"""GC203 of another kind: the carry's cotangent is lost between some steps, or between all of them.

What each step contributes to each term of the objective is measured by differences. Of those that pass a cut nothing comes back:
without them the sum has to be the wrong gradient, along the direction in which they were measured and along a fresh one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from gradcheck.diagnosis.parts_of_sum import Floats, Measured, Part, measured
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, numbers, step_blame, worst
from gradcheck.diagnosis.wrong_rule import add_rule, op_blame, op_proof
from gradcheck.evidence import Evidence
from gradcheck.model import Case, Finding, Role, Verdict

SALTS = ("probe", "cut")
ALL, EVERY, ONCE, WINDOW = "between all steps", "every k steps", "at one step", "after k steps"


@dataclass(frozen=True)
class Cut:
    """kind: ALL, EVERY (k-th step), ONCE (on the way from step k into step k - 1), or WINDOW (k steps back from each term).

    error: of the sum of what is left against the wrong gradient, relative.
    """

    kind: str
    k: int
    error: float

    @property
    def place(self) -> tuple[str, int]:
        return self.kind, self.k


def carry_cut(scene: Scene, group: list[Evidence]) -> Iterator[tuple[Cut, list[Evidence]]]:
    """The cuts that explain wrong gradients of one backend, with those that they explain. The others are looked at only if the
    worst one shows a cut, for a look is a compilation; what fits that one is not looked at twice.
    """
    left = [e for e in group if can_be_cut(scene.case, e)]
    timed = [e for e in left if is_timed(scene.case, e)]
    while timed:
        lead = worst(timed)
        cut = looked_for(scene, lead)
        if cut is None:
            return
        fitting = [e for e in left if e is lead or fits(scene, e, cut)]
        yield cut, fitting
        left = [e for e in left if not any(e is f for f in fitting)]
        timed = [e for e in left if is_timed(scene.case, e)]


def can_be_cut(case: Case, evidence: Evidence) -> bool:
    if case.native or case.steps < 2 or evidence.gradient.array is None or not case.inputs_of(Role.CARRY):
        return False
    return is_timed(case, evidence) or case.input(evidence.check.parameter).role is Role.CARRY


def is_timed(case: Case, evidence: Evidence) -> bool:
    """Whether it can be moved at single steps; an initial carry acts at one time only."""
    return case.input(evidence.check.parameter).role in (Role.PARAMETER, Role.SEQUENCE)


def looked_for(scene: Scene, evidence: Evidence) -> Cut | None:
    """The first cut that explains a wrong gradient along two directions."""
    first = seen(scene, evidence, SALTS[0])
    if first is None or not is_apart(first) or not first.analytic:
        return None
    for kind, k in kinds(scene.case.steps):
        kept = passing(kind, k, *times(scene.case, evidence))
        if first.equals(kept):
            second = seen(scene, evidence, SALTS[1])
            if second is not None and second.equals(kept):
                return Cut(kind, k, max(first.relative(kept), second.relative(kept)))
    return None


def fits(scene: Scene, evidence: Evidence, cut: Cut) -> bool:
    """Whether a cut that another gradient of the backend has shows here, too; along one direction, as it was not looked for."""
    found = seen(scene, evidence, SALTS[0])
    kept = passing(cut.kind, cut.k, *times(scene.case, evidence))
    return found is not None and found.equals(kept, known_elsewhere=True)


def times(case: Case, evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """(steps of the objective's terms [terms, 1], steps of the moves [1, moves]): -1 where an initial carry acts."""
    at = next(o for o in case.objectives if o.name == evidence.check.objective).at
    terms = np.arange(case.steps) if at == "all" else np.array([case.steps - 1 if at == "last" else int(at)])
    moved = np.arange(case.steps) if is_timed(case, evidence) else np.array([-1])
    return terms[:, None], moved[None, :]


def is_apart(found: Measured) -> bool:
    """Whether the wrong gradient is not the sum of all."""
    return not found.miss(np.ones_like(found.value)) <= float(found.bound.sum()) + found.granted


def seen(scene: Scene, evidence: Evidence, salt: str) -> Measured | None:
    terms, _ = times(scene.case, evidence)
    parts: list[Part] = [None] if len(terms) == 1 else [(0, t) for t in range(scene.case.steps)]
    return measured(scene, evidence, parts, salt, is_timed(scene.case, evidence))


def kinds(steps: int) -> Iterator[tuple[str, int]]:
    yield ALL, 1
    yield from ((ONCE, k) for k in range(1, steps))
    yield from ((EVERY, k) for k in range(2, steps))
    yield from ((WINDOW, k) for k in range(2, steps))


def passing(kind: str, k: int, terms: np.ndarray, moved: np.ndarray) -> Floats:
    """1 where what a step (moved, -1: the initial carry) contributes to a term passes no cut: float64[terms, moved]."""
    if kind == ALL:
        kept = moved == terms
    elif kind == ONCE:
        kept = ~((moved < k) & (k <= terms))
    elif kind == EVERY:
        kept = np.maximum(moved, 0) // k == terms // k
    else:
        kept = terms - moved < k
    return np.asarray(kept, dtype=np.float64)


def cut_claims(scene: Scene, group: list[Evidence]) -> Iterator[Claim]:
    for cut, checks in carry_cut(scene, group):
        yield Claim("GC203", add_rule(checks, "GC203"), partial(describe, scene, cut))


def lost_carry(scene: Scene) -> Iterable[Claim]:
    """Wrong gradients that no rule has explained so far."""
    for group in by(scene.unexplained(Verdict.MISMATCH), lambda e: e.check.backend):
        yield from cut_claims(scene, [e for e in group if "consensus" not in e.notes])


WORDS = {
    ALL: ("is not passed on from step to step", "lost between all steps: this is a truncation to 1 step"),
    ONCE: ("is lost between steps {before} and {k}", "lost between steps {before} and {k}: what passes there does not come back"),
    EVERY: ("is cut every {k} steps", "cut every {k} steps: this is a truncation to at most {k} steps"),
    WINDOW: ("is followed back over {k} steps only", "lost after {k} steps from each term: this is a truncation to {k} steps"),
}  # fmt: skip


def describe(scene: Scene, cut: Cut, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    title, because = (text.format(k=cut.k, before=cut.k - 1) for text in WORDS[cut.kind])
    culprit = shown.notes.get("culprit")
    return finding(
        "GC203",
        checks,
        f"gradient is wrong because the carry's cotangent {title}",
        numbers=numbers(shown),
        because=f"the gradient equals the right one with the carry's cotangent {because}",
        proof="the effect of each step on each term of the objective was measured by differences: the sum of those that pass no "
        f"cut is the wrong gradient along two random directions, to {cut.error:.0e}" + op_proof(shown),
        help="look for what keeps the carry's cotangent: a detach, a copy, a reverse rule that returns zeros for it",
        note="the forward pass is not truncated, so the objective is right",
        whose=f"the reverse rule of {culprit.look.node.op}" if culprit else "the step, or the backend's loop",
        blame=op_blame(shown) or step_blame(scene.case),
    )
