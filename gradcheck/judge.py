"""What only several backends can tell: who disagrees on the forward value, and whether a scan differs from its unroll."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradcheck.evidence import BackendEvidence, Evidence
from gradcheck.model import Case, Verdict

FORWARD_RTOL = {"float64": 1e-9, "float32": 1e-3, "float16": 3e-2}  # of the sum of the terms' magnitudes
GRADIENT_RTOL = {"float64": 1e-6, "float32": 1e-2}  # of the largest entry


def across_backends(case: Case, results: Sequence[BackendEvidence], framework_of: dict[str, str]) -> None:
    """Add to the evidence, in place, what the comparison of backends shows. framework_of: backend name -> framework folder."""
    for result in results:
        attach_unrolled(result, results, framework_of)
    if not case.draws_in_step:  # each framework draws other numbers
        forward_agreement(case, results)
        gradient_agreement(case, results)
    for result in results:
        for evidence in result.checks:
            scan_against_unroll(evidence, case.dtype)


def attach_unrolled(result: BackendEvidence, results: Sequence[BackendEvidence], framework_of: dict[str, str]) -> None:
    """Give a scan's checks the gradient of the same framework's unroll, which used the same draws."""
    if result.rollout != "scan":
        return
    for other in results:
        if (
            other.rollout == "unroll"
            and framework_of[other.backend] == framework_of[result.backend]
            and not other.error
        ):
            by_pair = {(e.check.objective, e.check.parameter): e for e in other.checks}
            for evidence in result.checks:
                twin = by_pair.get((evidence.check.objective, evidence.check.parameter))
                if twin is not None:
                    evidence.unrolled, evidence.unrolled_passes = twin.gradient, twin.check.verdict is Verdict.PASS


def scan_against_unroll(evidence: Evidence, dtype: str) -> None:
    """GC208 beside GC201 where the unrolled gradient of the same framework is right and the scan's is another."""
    if evidence.check.verdict is Verdict.MISMATCH and evidence.unrolled_passes and evidence.unrolled is not None:
        here, there = evidence.gradient.array, evidence.unrolled.array
        if (
            here is not None
            and there is not None
            and np.abs(here - there).max() > GRADIENT_RTOL[dtype] * np.abs(there).max()
        ):
            evidence.notes["unrolled_error"] = float(np.abs(here - there).max())
            add_code(evidence, "GC208")


def forward_agreement(case: Case, results: Sequence[BackendEvidence]) -> None:
    """GC601 for backends whose value of an objective is not the one that most others have."""
    ran = [r for r in results if r.values is not None and r.magnitudes is not None]
    for i, objective in enumerate(case.objectives):
        finite = [r for r in ran if r.values is not None and np.isfinite(r.values[i])]
        if len(finite) < 2:
            continue
        values = np.array([r.values[i] for r in finite if r.values is not None])
        size = float(np.median([r.magnitudes[i] for r in finite if r.magnitudes is not None]))
        allowed = max(FORWARD_RTOL[r.coarsest or case.dtype] for r in finite) * size
        agrees = (np.abs(values[:, None] - values[None, :]) <= allowed).sum(1)
        if agrees.min() == len(finite):
            continue
        majority = values[int(np.argmax(agrees))]
        known = 2 * agrees.max() > len(finite)  # else nobody can be called the outlier
        for result, value in zip(finite, values, strict=True):
            if known and abs(value - majority) <= allowed:
                continue
            for evidence in result.checks:
                if evidence.check.objective == objective.name:
                    evidence.notes["forward"] = (float(value), float(majority), known, size)
                    evidence.check = replace(
                        evidence.check, verdict=worse(evidence.check.verdict), codes=(*evidence.check.codes, "GC601")
                    )


def gradient_agreement(case: Case, results: Sequence[BackendEvidence]) -> None:
    """GC201 for a gradient that passed its own differences and yet is not the one that all other backends have."""
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for result in results:
        for evidence in result.checks:
            if evidence.gradient.array is not None and evidence.check.verdict is Verdict.PASS:
                groups.setdefault((evidence.check.objective, evidence.check.parameter), []).append(evidence)
    for group in groups.values():
        arrays = [np.asarray(e.gradient.array, dtype=np.float64) for e in group]
        if len(group) < 3 or len({a.shape for a in arrays}) != 1:
            continue
        middle = np.median(arrays, axis=0)
        errors = [float(np.abs(a - middle).max(initial=0.0)) for a in arrays]
        worst = int(np.argmax(errors))
        others = max(error for k, error in enumerate(errors) if k != worst)
        limit = max(GRADIENT_RTOL[case.dtype] * float(np.abs(middle).max(initial=0.0)), 100 * others)
        if errors[worst] > limit:
            evidence = group[worst]
            evidence.notes["consensus"] = (errors[worst], len(group))
            evidence.check = replace(
                evidence.check,
                verdict=Verdict.MISMATCH,
                codes=("GC201",),
                max_abs_error=errors[worst],
                max_rel_error=errors[worst] / float(np.abs(middle).max()),
                detection_limit=None,
            )


def worse(verdict: Verdict) -> Verdict:
    return Verdict.MISMATCH if verdict in (Verdict.PASS, Verdict.INCONCLUSIVE) else verdict


def add_code(evidence: Evidence, code: str) -> None:
    if code not in evidence.check.codes:
        evidence.check = replace(evidence.check, codes=(*evidence.check.codes, code))
