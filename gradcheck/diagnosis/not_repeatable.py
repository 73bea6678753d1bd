"""GC501 and GC502: equal calls give different answers, so no difference can be trusted."""

from __future__ import annotations

from collections.abc import Iterable

from gradcheck.diagnosis.scene import Claim, Scene, by, finding, step_blame
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Verdict

WORDS = {
    "GC501": (
        "the forward pass changes between equal calls",
        "two evaluations at the same point gave different objectives",
    ),
    "GC502": (
        "the gradient changes between equal calls",
        "two gradients at the same point differ by more than rounding",
    ),
}


def not_repeatable(scene: Scene) -> Iterable[Claim]:
    for group in by(scene.checks(Verdict.NONDETERMINISTIC), lambda e: e.check.codes[0]):
        yield Claim(group[0].check.codes[0], group, lambda part: describe(scene, part))


def describe(scene: Scene, checks: list[Evidence]) -> Finding:
    code = checks[0].check.codes[0]
    title, because = WORDS[code]
    return finding(
        code,
        checks,
        title,
        because=because,
        help="declare the noise in the case file (noise:), so that every evaluation draws the same; or seed it inside the step",
        note="gradients that pass elsewhere are not affected",
        whose="the step: it reads something that changes, such as a generator or a counter of its own",
        blame=step_blame(scene.case),
    )
