"""GC401 to GC404: the reference cannot tell, and says why. Not an error."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from gradcheck.diagnosis.blame import Node, first_line, nodes_of
from gradcheck.diagnosis.scene import Claim, Scene, alike, finding, numbers, unique
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
        yield Claim(group[0].check.codes[0], group, partial(describe, scene))


def describe(scene: Scene, checks: list[Evidence]) -> Finding:
    code = checks[0].check.codes[0]
    steps = stepwise(scene, checks[0].check.backend) if code == "GC401" else []
    where = " and ".join(unique(f"{n.op} at {n.place}" for n in steps[:3]))
    does = "returns an integer" if all(n.kind == "integer" for n in steps) else "moves in steps"
    return finding(
        code,
        checks,
        TITLES[code],
        Severity.INCONCLUSIVE,
        numbers=numbers(checks[0]),
        because=checks[0].check.reason + (f"; {where} {does}" if where else ""),
        help=HELP[code],
        note="nothing was found to be wrong, and nothing was shown to be right",
        whose="the case: a property of the objective at this point, not of the gradient",
        blame=first_line(steps),
    )


def stepwise(scene: Scene, backend: str) -> list[Node]:
    """The ops that make steps of what moves, as far as the backend can tell."""
    nodes = nodes_of(scene, backend, ("op", "custom", "integer"), active=False)
    return [n for n in nodes if n.stepwise]
