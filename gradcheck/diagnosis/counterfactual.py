"""Runs a changed case on the same backend and says which of the failing gradients it puts right: proofs are run, not imagined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gradcheck._backends._worker import directions
from gradcheck.diagnosis.scene import Scene
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.examine import DEFAULT_RTOL, domain, probe_key
from gradcheck.judge import scan_against_unroll
from gradcheck.model import Case, Gradient, Verdict
from gradcheck.session import Arrays


@dataclass
class Agreement:
    """explained: checks whose gradient in the changed case agrees with the ORIGINAL case's reference. words: what was seen.

    missing: checks that have no gradient in the changed case either, so that their cause is another.
    """

    explained: list[Evidence]
    words: str
    missing: list[Evidence] = field(default_factory=list)
    errors: dict[int, float] = field(default_factory=dict)  # by id of the check

    def words_for(self, checks: Sequence[Evidence]) -> str:
        """What was seen of a part of the checks that are explained."""
        known = [self.errors[id(e)] for e in checks if id(e) in self.errors]
        many = f"all {len(known)} of these gradients agree" if len(known) > 1 else "the gradient agrees"
        return f"{many} with the same differences, {closely(max(known))}" if known else self.words


def agreement(scene: Scene, checks: Sequence[Evidence], changed: Case, arrays: Arrays) -> Agreement:
    """Take the changed case's gradients and hold them against the references of the original's own forward values."""
    name = checks[0].check.backend
    try:
        with scene.lab.session(changed, name, arrays) as session:
            values, magnitudes = session.values([()])
            gradients = session.gradients()
    except BackendError as error:
        return Agreement([], f"the counterfactual could not be run: {error.message}")
    original = next(r.values for r in scene.results if r.backend == name)
    rounding = {"float64": 1e-12, "float32": 1e-4}[scene.case.dtype] * magnitudes[0]
    if original is None or (np.abs(values[0] - original) > rounding).any():
        return Agreement([], "the changed case has another forward value and proves nothing")
    return held_against(scene, checks, gradients)


def held_against(scene: Scene, checks: Sequence[Evidence], gradients: dict[tuple[str, str], Gradient]) -> Agreement:
    """Which of the checks these gradients put right, by the references that the checks have already."""
    found = {id(e): remaining_error(scene, e, gradient_of(gradients, e)) for e in checks}
    errors = {key: miss for key, miss in found.items() if miss is not None}
    explained = [e for e in checks if id(e) in errors]
    missing = [e for e in checks if gradient_of(gradients, e).array is None]
    if not explained:
        return Agreement([], "the counterfactual did not explain the error", missing)
    many = f"all {len(checks)} of these gradients agree" if len(explained) > 1 else "the gradient agrees"
    if len(explained) < len(checks):
        many = f"{len(explained)} of {len(checks)} agree"
    return Agreement(explained, f"{many} with the same differences, {closely(max(errors.values()))}", missing, errors)


def closely(error: float) -> str:
    """How closely two numbers agree, in words."""
    return f"to {error:.0e}" if error else "exactly"


def with_own_derivative(
    scene: Scene, backend: str, ops: set[int], open_stops: bool = False
) -> dict[tuple[str, str], Gradient]:
    """The gradients composed op by op, the derivative of the forward of some ops, by differences, in the place of their rules.

    ops: their numbers. {} where that cannot be had.
    """
    try:
        with scene.lab.session(scene.case, backend, scene.arrays) as session:
            if not session.can("composed"):
                return {}
            return session.composed(inside=sorted(ops), open_stops=open_stops)
    except BackendError:
        return {}


def gradient_of(gradients: dict[tuple[str, str], Gradient], evidence: Evidence) -> Gradient:
    return gradients[evidence.check.objective, evidence.check.parameter]


def remaining_error(scene: Scene, evidence: Evidence, gradient: Gradient) -> float | None:
    """Relative error of another gradient against a check's own reference, or None if it is not right (or not there)."""
    if gradient.array is None or evidence.estimate is None or not np.isfinite(gradient.array).all():
        return None
    name, i = evidence.check.parameter, evidence.objective_index
    scale = evidence.scale
    array = scene.arrays[name]
    limits = domain(array, scene.case.input(name).bounds, scale)
    move = limits.keep({"key": probe_key(scene.case.seed, evidence.salt, name)})
    total, norm, _ = directions.dot(gradient.array, move, array.reshape(-1))
    value, bound = float(evidence.estimate.value[i]), float(evidence.estimate.bound[i])
    miss = abs(total * scale - value)
    rtol = scene.case.rtol if scene.case.rtol is not None else DEFAULT_RTOL[scene.case.dtype]
    return miss / (norm * scale or 1.0) if miss <= bound + rtol * norm * scale + 1e-12 * abs(value) else None


def run_unroll(scene: Scene) -> None:
    """Where a scan failed and its framework's unroll was not among the backends: run it, for comparison, with the same draws."""
    for result in scene.results:
        lacking = [e for e in failing(result.checks) if e.unrolled is None]
        if result.rollout != "scan" or not lacking:
            continue
        framework = scene.lab.catalog[result.backend][0].name
        siblings = [n for n, (b, rollout) in scene.lab.catalog.items() if b.name == framework and rollout == "unroll"]
        for name in siblings[:1]:
            try:
                with scene.lab.session(scene.case, name, scene.arrays) as session:
                    gradients = session.gradients()
            except BackendError:
                continue
            for evidence in lacking:
                evidence.unrolled = gradient_of(gradients, evidence)
                evidence.unrolled_passes = remaining_error(scene, evidence, evidence.unrolled) is not None
                scan_against_unroll(evidence, scene.case.dtype)


def failing(checks: Sequence[Evidence]) -> list[Evidence]:
    return [e for e in checks if e.check.verdict in (Verdict.NULL, Verdict.MISMATCH)]
