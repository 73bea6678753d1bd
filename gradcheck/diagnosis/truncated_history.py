"""GC203: the backward pass was told to stop before the first step. Shown by running the same case without truncation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from gradcheck.diagnosis.counterfactual import agreement
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, line_blame, numbers, worst
from gradcheck.evidence import Evidence
from gradcheck.model import Case, Finding, Verdict

OPTION = "truncate_gradient"


def truncated_history(scene: Scene) -> Iterable[Claim]:
    for group in by(scene.checks(Verdict.MISMATCH), lambda e: e.check.backend):
        backend, rollout = scene.lab.catalog[group[0].check.backend]
        kept = scene.case.options.get(backend.name, {}).get(OPTION, -1)
        if rollout == "scan" and 0 < kept < scene.case.steps:
            whole = agreement(scene, group, without_truncation(scene.case, backend.name), scene.arrays)
            if whole.explained:
                yield Claim("GC203", whole.explained, partial(describe, scene, kept, whole.words))


def without_truncation(case: Case, framework: str) -> Case:
    options = {**case.options, framework: {k: v for k, v in case.options[framework].items() if k != OPTION}}
    return replace(case, options=options)


def describe(scene: Scene, kept: int, words: str, checks: list[Evidence]) -> Finding:
    lines = scene.case.path.read_text(encoding="utf-8").splitlines() if scene.case.path.exists() else []
    line = next((n for n, text in enumerate(lines, 1) if OPTION in text.split("#")[0]), 0)
    return finding(
        "GC203",
        checks,
        f"gradient is wrong because the backward pass keeps only the last {kept} of {scene.case.steps} steps",
        numbers=numbers(worst(checks)),
        because=f"{OPTION}: {kept} cuts the carry's adjoint; what the first {scene.case.steps - kept} steps contribute is lost",
        proof=f"without the truncation {words}",
        help=f"remove `{OPTION}: {kept}`, or expect GC203 if the bias is meant (truncated backpropagation through time)",
        note="the forward pass is not truncated, so the objective is right",
        whose="the case",
        blame=line_blame(scene.case.path, line) if line else None,
    )
