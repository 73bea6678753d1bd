"""GC401 to GC404: the reference cannot tell, and says why. Not an error."""

from __future__ import annotations

from collections.abc import Iterable

from gradcheck.diagnosis.scene import Claim, Scene, alike, finding, numbers
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Severity, Verdict

TITLES = {
    "GC401": "the objective is stepwise in this input",
    "GC402": "the objective has a kink here",
    "GC403": "rounding hides the derivative",
    "GC404": "differences of the objective do not converge",
}
HELP = {
    "GC401": "a gradient does not exist here; relax the step (soft attention), or estimate it from samples (score function)",
    "GC402": "move the point a little (another seed), or judge by a smooth activation",
    "GC403": "use an objective without a large constant part, and float64 all the way: as dtype, and with no casts to less",
    "GC404": "use fewer steps, or smaller weights: the objective changes faster than any usable step",
}


def no_reference(scene: Scene) -> Iterable[Claim]:
    for group in alike(scene.checks(Verdict.INCONCLUSIVE), lambda e: e.check.codes[:1]):
        yield Claim(group[0].check.codes[0], group, describe)


def describe(checks: list[Evidence]) -> Finding:
    code = checks[0].check.codes[0]
    return finding(
        code,
        checks,
        TITLES[code],
        Severity.INCONCLUSIVE,
        numbers=numbers(checks[0]),
        because=checks[0].check.reason,
        help=HELP[code],
        note="nothing was found to be wrong, and nothing was shown to be right",
        whose="the case: a property of the objective at this point, not of the gradient",
    )
