"""Runs a changed case on the same backend and says which of the failing gradients it puts right: proofs are run, not imagined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradcheck._backends._worker import directions
from gradcheck.diagnosis.scene import Scene
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.examine import Examination
from gradcheck.model import Case, Verdict
from gradcheck.session import Arrays


@dataclass
class Agreement:
    """explained: checks whose gradient in the changed case agrees with the ORIGINAL case's reference. words: what was seen."""

    explained: list[Evidence]
    words: str
    same_forward: bool


def agreement(scene: Scene, checks: Sequence[Evidence], changed: Case, arrays: Arrays) -> Agreement:
    """Take the changed case's gradients and hold them against the references of the original's own forward values."""
    name = checks[0].check.backend
    try:
        with scene.lab.session(changed, name, arrays) as session:
            values, magnitudes = session.values([()])
            gradients = session.gradients()
            examination = Examination(name, session, None, scene.case.rtol, scene.case.atol)
    except BackendError as error:
        return Agreement([], f"the counterfactual could not be run: {error.message}", False)
    original = next(r for r in scene.results if r.backend == name)
    assert original.values is not None
    same = (
        bool((np.abs(values[0] - original.values) <= 1e-12 * magnitudes[0] + 0.0).all())
        or scene.case.dtype == "float32"
    )
    explained: list[Evidence] = []
    errors: list[float] = []
    for evidence in checks:
        gradient = gradients[evidence.check.objective, evidence.check.parameter]
        if gradient.array is None or evidence.estimate is None:
            continue
        key = {"key": examination.key("probe", evidence.check.parameter)}
        scale = examination.scales[evidence.check.parameter]
        total, norm, _ = directions.dot(gradient.array, key)
        i = evidence.objective_index
        miss = abs(total * scale - float(evidence.estimate.value[i]))
        bound = float(evidence.estimate.bound[i])
        if np.isfinite(miss) and miss <= bound + examination.rtol * norm * scale + 1e-12 * abs(
            float(evidence.estimate.value[i])
        ):
            explained.append(evidence)
            errors.append(miss / (norm * scale) if norm else 0.0)
    total_count = len(checks)
    if not same or not explained:
        return Agreement([], "the counterfactual did not explain the error", same)
    how_many = (
        f"all {total_count} of these gradients agree"
        if len(explained) == total_count
        else f"{len(explained)} of {total_count} agree"
    )
    if total_count == 1:
        how_many = "the gradient agrees"
    return Agreement(explained, f"{how_many} with the same differences, to {max(errors):.0e}", same)


def failing(checks: Sequence[Evidence]) -> list[Evidence]:
    return [e for e in checks if e.check.verdict in (Verdict.NULL, Verdict.MISMATCH)]
