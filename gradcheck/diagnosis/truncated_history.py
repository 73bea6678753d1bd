"""GC203: the backward pass stops before the first step.

Where an option told it to, that is shown by running the same case without truncation. Where none did, it is read off the time
steps: what the first k contribute is missing, and the contributions of all others are right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from gradcheck.diagnosis.carry_cut import ONCE, Cut, fits
from gradcheck.diagnosis.counterfactual import Agreement, agreement
from gradcheck.diagnosis.loops import Loops, blame, loops_of, place
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, line_blame, numbers, step_blame, unique, worst
from gradcheck.diagnosis.time_steps import timeline
from gradcheck.diagnosis.wrong_rule import add_rule, op_blame, op_proof
from gradcheck.evidence import Evidence
from gradcheck.model import Case, Finding, Role, Verdict

OPTION = "truncate_gradient"


def truncated_history(scene: Scene) -> Iterable[Claim]:
    for group in by(scene.checks(Verdict.MISMATCH), lambda e: e.check.backend):
        backend, rollout = scene.lab.catalog[group[0].check.backend]
        kept = scene.case.options.get(backend.name, {}).get(OPTION, -1)
        if rollout == "scan" and 0 < kept < scene.case.steps:
            whole = agreement(scene, group, without_truncation(scene.case, backend.name), scene.arrays)
            if whole.explained:
                yield Claim("GC203", whole.explained, partial(describe, scene, kept, whole.words))
                continue
        loops = loops_of(scene, group[0].check.backend)
        seen = loops.held(scene, group, whole=True) if loops.truncated else None
        if seen and seen.explained:
            yield Claim("GC203", seen.explained, partial(describe_loops, loops, seen))


def without_truncation(case: Case, framework: str) -> Case:
    return replace(case, options={**case.options, framework: {**case.options[framework], OPTION: -1}})


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


def describe_loops(loops: Loops, seen: Agreement, checks: list[Evidence]) -> Finding:
    """Truncation that the model's own loops were told."""
    shown, first = worst(checks), loops.truncated[0]
    kept, steps = first["kept"], first["steps"]
    where = " and ".join(unique(f"the scan at {place(told)} has {OPTION}={told['kept']}" for told in loops.truncated))
    share = f", {shown.check.max_rel_error:.2g} of the largest entry" if shown.check.max_rel_error is not None else ""
    return finding(
        "GC203",
        checks,
        f"gradient is wrong because the backward pass keeps only the last {kept} of {steps} steps",
        numbers=numbers(shown),
        because=f"{where}, which cuts the carry's adjoint; what the first {steps - kept} steps contribute is lost{share}",
        proof=f"with the scan made again without the truncation {seen.words_for(checks)}",
        help=f"remove `{OPTION}={kept}`, or expect GC203 if the bias is meant (truncated backpropagation through time)",
        note="the forward pass is not truncated, so the objective is right",
        whose="the step",
        blame=blame(first, "scan"),
    )


def cut_history(scene: Scene) -> Iterable[Claim]:
    """Gradients that no rule explained so far and that lack the first k steps. One look is a compilation: the others of a
    backend are looked at only if its worst one shows it.
    """
    for group in by(filter(is_unexplained, scene.unexplained(Verdict.MISMATCH)), lambda e: e.check.backend):
        if missing_before(scene, worst(group)) is None:
            continue
        for alike in by(group, lambda e: missing_before(scene, e)):
            k = missing_before(scene, alike[0])
            if k is not None:
                also = [e for e in initial(scene, alike[0].check.backend) if fits(scene, e, Cut(ONCE, k, 0.0))]
                yield Claim("GC203", add_rule([*alike, *also], "GC203"), partial(describe_cut, scene, k))


def initial(scene: Scene, backend: str) -> list[Evidence]:
    """The wrong gradients of a backend by initial carries, which have no time steps of their own."""
    left = [e for e in scene.unexplained(Verdict.MISMATCH) if e.check.backend == backend]
    return [e for e in left if scene.case.input(e.check.parameter).role is Role.CARRY]


def is_unexplained(evidence: Evidence) -> bool:
    """Whether a wrong gradient that is not all zero has no code yet but those of what was observed."""
    array = evidence.gradient.array
    return set(evidence.check.codes) <= {"GC201", "GC208"} and array is not None and bool(array.any())


def missing_before(scene: Scene, evidence: Evidence) -> int | None:
    found = timeline(scene, evidence)
    return found.history.missing_before if found is not None else None


def describe_cut(scene: Scene, k: int, checks: list[Evidence]) -> Finding:
    last = scene.case.steps - 1
    lost = "step 0 contributes" if k == 1 else f"steps 0 to {k - 1} contribute"
    return finding(
        "GC203",
        checks,
        f"gradient is wrong because what {lost} is missing",
        numbers=numbers(worst(checks)),
        because=f"the contributions of steps 0..{k - 1} are missing: they are 0 exactly, and the differences' are not; "
        f"those of steps {k}..{last} are right, so likely the carry's cotangent is lost on its way into step {k - 1}",
        proof="the input was moved at single steps, and at many at once, and each derivative held against differences"
        + op_proof(worst(checks)),
        help=f"look for what cuts the carry between steps {k - 1} and {k}: a detach, a mask, a custom reverse rule",
        note="the forward pass is not truncated, so the objective is right",
        whose="the step, or the backend's loop",
        blame=op_blame(worst(checks)) or step_blame(scene.case),
    )
