"""GC703: a draw whose reverse rule is the derivative of its distribution, not of the one draw that a seed gives.

Samplers that reject (gamma, beta, Dirichlet) jump under a fixed seed as their parameter moves. Frameworks give them the implicit
derivative of the distribution instead, whose mean over draws is that of the objective. That is what is shown here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from gradcheck.diagnosis.blame import Node, first_line, inspected, nodes_of
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, number, numbers, step_blame, unique, worst
from gradcheck.diagnosis.score_function import FEW
from gradcheck.diagnosis.stopped import accept
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.examine import probe_key
from gradcheck.model import Finding, Severity, Verdict
from gradcheck.session import Session

REACHES = (0.1, 0.03)  # of the input's own size, to either side: the bend of the mean goes with the square
MOST = 1024  # draws
NEAR = 4.0  # standard errors that the two means may be apart
TELLS = 0.1  # of the slope: how well both have to be known to tell anything


@dataclass(frozen=True)
class Means:
    """Along a random direction of the input: the mean gradient and the slope of the mean, with the error of their difference."""

    gradient: float
    slope: float
    error: float
    draws: int


def implicit_draw(scene: Scene) -> Iterable[Claim]:
    """Gradients that pass through a draw, and whose mean over draws is the slope of the objective's mean."""
    for group in by(scene.unexplained(Verdict.MISMATCH), lambda e: e.check.backend):
        draws = implicit(scene, group[0].check.backend)
        if not draws:
            continue
        found: list[Evidence] = []
        try:
            with scene.lab.session(scene.case, group[0].check.backend, scene.arrays) as session:
                if session.can("redrawn_slopes"):
                    found = [e for e in group if agrees_in_the_mean(scene, session, e)]
        except BackendError:
            continue
        for evidence in found:
            accept(evidence)
        if found:
            yield Claim("GC703", found, partial(describe, scene, draws))


def implicit(scene: Scene, backend: str) -> list[Node]:
    """The draws that gradients pass through and whose own rule is not the derivative of one draw; [] if another op is wrong, too.

    Those that are examined as ops are (dropout draws as well, and its rule is right for the draw that it made).
    """
    nodes = nodes_of(scene, backend, ("op", "draw"))
    if not any(n.kind == "draw" or n.draws for n in nodes):
        return []
    wrong = [look.node for look in inspected(scene, backend).wrong]
    return [n for n in nodes if n.kind == "draw" or n in wrong] if all(n.draws for n in wrong) else []


def agrees_in_the_mean(scene: Scene, session: Session, evidence: Evidence) -> bool:
    """Note with the check the two means, if they are known well enough and agree."""
    name = evidence.check.parameter
    move = {"key": probe_key(scene.case.seed, "probe", name)}
    k, scale = evidence.objective_index, evidence.scale
    for reach in REACHES:
        points = [[(name, sign * reach * scale, move)] for sign in (1, -1)]
        slopes, gradients = np.zeros(0), np.zeros(0)
        while len(slopes) < MOST:
            seeds = range(len(slopes), len(slopes) + (FEW if not len(slopes) else 3 * len(slopes)))
            rows, taken = session.redrawn(points, seeds), session.redrawn_slopes([(name, scale, move)], seeds)
            if rows is None or taken is None:
                return False
            slopes = np.concatenate([slopes, (rows[0] - rows[1])[:, k] / (2 * reach)])
            gradients = np.concatenate([gradients, taken[:, k]])
        gap = gradients - slopes  # under the same draws, so that what is common to both goes out
        error = float(gap.std(ddof=1) / np.sqrt(len(gap)))
        mean, slope = float(gradients.mean()), float(slopes.mean())
        if not np.isfinite(error) or error > TELLS * abs(slope):
            continue
        if abs(mean - slope) <= NEAR * error:
            evidence.notes["means"] = Means(mean, slope, error, len(gap))
            return True
    return False


def describe(scene: Scene, draws: list[Node], checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    means: Means = shown.notes["means"]
    names = " and ".join(unique(f"{n.op} at {n.place}" for n in draws[:3]))
    return finding(
        "GC703",
        checks,
        "the gradient is that of a draw's distribution, not of one draw",
        Severity.ADVICE,
        numbers=(
            *numbers(shown),
            ("mean gradient", f"{number(means.gradient)} along the probe, over {means.draws} seeds"),
            ("slope of the mean", f"{number(means.slope)}, under the same draws; the two differ by less than "
                                  f"{NEAR:g} errors of {means.error:.1g}"),
        ),
        because=f"the gradient passes through {names}, which draws anew as its parameter moves: likely its reverse rule is the "
        "implicit derivative of the distribution",
        proof=f"the mean of this gradient over {means.draws} draws is the slope of the objective's mean over the same draws",
        note="meant: differences under one seed cannot confirm it",
        whose="the framework: how it differentiates the draw",
        blame=first_line(draws) or step_blame(scene.case),
    )  # fmt: skip
