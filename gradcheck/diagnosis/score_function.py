"""GC401 with its cause: a discrete draw has no pathwise derivative, so that a score function is missing.

Under any one draw the objective stands still, and a gradient of 0 is what it has. Its mean over draws moves all the same. That is
shown by evaluating it under many draws on either side of the point, each draw the same on both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from gradcheck._backends._worker import directions
from gradcheck.diagnosis.blame import first_line, nodes_of
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, number, step_blame, unique
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.examine import probe_key
from gradcheck.model import Finding, Severity, Verdict
from gradcheck.session import Session

FEW, MANY = 256, 4096  # draws: to begin with, and at most
# Moves that are tried until one shows something: how far, of the input's own size, and along which random direction.
TRIED = ((0.1, "probe"), (0.5, "probe"), (0.5, "mean 1"), (0.5, "mean 2"))
SURE = 6.0  # standard errors
CLOSE = 0.05  # how well the slope of the mean is told, as far as MANY draws can


@dataclass(frozen=True)
class Mean:
    """The slope of the mean over draws, per unit of the input if it is a scalar, else along a random direction.

    reach: of the moves to either side, in the input's own size.
    """

    reach: float
    slope: float
    error: float
    draws: int
    scalar: bool


def score_function(scene: Scene) -> Iterable[Claim]:
    """Inputs in which the objective stands still under its own draws, and moves in the mean over draws."""
    still = [e for e in scene.unexplained(Verdict.INCONCLUSIVE, Verdict.PASS, Verdict.DISCONNECTED) if is_still(e)]
    found: list[Evidence] = []
    for group in by(still, lambda e: e.check.backend):
        try:
            with scene.lab.session(scene.case, group[0].check.backend, scene.arrays) as session:
                if session.can("redrawn"):
                    found.extend(e for e in group if moves_in_the_mean(scene, session, e))
        except BackendError:
            continue
    for evidence in found:
        words = "under one draw the objective stands still, and its mean over draws moves"
        evidence.check = replace(
            evidence.check, verdict=Verdict.INCONCLUSIVE, codes=("GC401",), detection_limit=None, reason=words
        )
    for group in by(found, lambda e: e.check.parameter):
        yield Claim("GC401", group, partial(describe, scene))


def is_still(evidence: Evidence) -> bool:
    """Whether neither gradient nor objective moves for small steps."""
    array = evidence.gradient.array
    return evidence.check.codes[:1] in (("GC401",), ("GC104",)) and (array is None or not array.any())


def moves_in_the_mean(scene: Scene, session: Session, evidence: Evidence, most: int = MANY) -> bool:
    """Note with the check how its objective's mean over draws moves, if it does. most: draws."""
    name = evidence.check.parameter
    if name not in session.tensors or not session.tensors[name].is_float:
        return False
    for reach, salt in TRIED:
        found = slope_of_mean(scene, session, evidence, reach, salt, most)
        if found is not None:
            evidence.notes["mean over draws"] = found
            return True
    return False


def slope_of_mean(
    scene: Scene, session: Session, evidence: Evidence, reach: float, salt: str, most: int
) -> Mean | None:
    """The slope of the mean over draws; None if nothing is drawn, or that many draws do not show that it moves."""
    name = evidence.check.parameter
    move = {"key": probe_key(scene.case.seed, salt, name)}
    points = [[(name, sign * reach * evidence.scale, move)] for sign in (1, -1)]
    shape = session.tensors[name].shape
    ones = np.ones(shape)
    scalar = ones.size == 1
    unit = directions.dot(ones, move, ones.reshape(-1))[0] * evidence.scale if scalar else 1.0
    slopes, found = np.zeros(0), None
    while len(slopes) < most:
        more = FEW if not len(slopes) else 3 * len(slopes)
        rows = session.redrawn(points, range(len(slopes), len(slopes) + more))
        if rows is None:
            return None
        slopes = np.concatenate([slopes, (rows[0] - rows[1])[:, evidence.objective_index] / (2 * reach)])
        mean, error = float(slopes.mean()), float(slopes.std(ddof=1) / np.sqrt(len(slopes)))
        if not np.isfinite(mean):
            return None
        if error and abs(mean) > SURE * error:
            found = Mean(reach, mean / unit, abs(error / unit), len(slopes), scalar)
            if error <= CLOSE * abs(mean):
                break
    return found


def describe(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = checks[0]
    mean: Mean = shown.notes["mean over draws"]
    name = shown.check.parameter
    along = "" if mean.scalar else "   along a random direction"
    draws = [n for e in checks for n in nodes_of(scene, e.check.backend, ("draw",), active=False)]
    drawn = (
        f"what {' and '.join(unique(f'{n.op} at {n.place}' for n in draws[:2]))} gives" if draws else "what is drawn"
    )
    reach = f"+-{mean.reach:g} of its size"
    return finding(
        "GC401",
        checks,
        f"a score function is missing: {name} acts through a discrete draw",
        Severity.INCONCLUSIVE,
        numbers=(
            ("analytic", "0 exactly" if shown.gradient.array is not None else "none"),
            ("finite difference", "0 exactly, under the draws of one seed"),
            ("mean over draws", f"{number(mean.slope)} +- {mean.error:.1g}   over {mean.draws} seeds, {reach}{along}"),
        ),
        because=f"under any one draw the objective stands still in {name}: {drawn} moves in jumps; "
        f"its mean over {mean.draws} draws moves, by {abs(mean.slope / mean.error):.0f} times the error of that mean",
        proof=f"evaluated at {reach} under the same {mean.draws} draws on either side",
        help="add a score-function term: stop_gradient(objective) * log_probability(draw), differentiated by the log; "
        "or relax the draw (Gumbel-softmax), or let it pass straight through",
        note="the zero gradient is right for one draw, and useless for training",
        whose="the step",
        blame=first_line(draws) or step_blame(scene.case),
    )
