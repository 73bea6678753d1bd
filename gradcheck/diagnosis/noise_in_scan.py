"""GC101 and GC202: noise drawn inside a scanned step. Some gradients are refused (null), others are silently wrong.

The backward scan would need the draws of the forward pass. Where a parameter's own inner gradient reads the draw, the framework
refuses. Where only the carry's adjoint passes through it, the backward scan draws anew and the gradient is wrong without a word.
Shown by recording the draws and passing them in as a sequence: the same model with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from gradcheck.diagnosis.counterfactual import Agreement, agreement, failing
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, first_use, numbers, worst
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Blame, Case, Finding, Placement, Verdict


def noise_in_scan(scene: Scene) -> Iterable[Claim]:
    if not scene.case.draws_in_step:
        return
    for group in by(failing(scene.checks(Verdict.NULL, Verdict.MISMATCH)), lambda e: e.check.backend):
        if scene.lab.catalog[group[0].check.backend][1] != "scan":
            continue
        proven = as_sequence(scene, group)
        explained = {id(e) for e in proven.explained}
        for evidence in proven.missing:  # null without any draw in the step: an op of its own has no reverse rule
            codes = tuple("GC102" if code == "GC101" else code for code in evidence.check.codes)
            evidence.check = replace(evidence.check, codes=codes)
        null = [e for e in group if e.check.codes[0] == "GC101"]
        wrong = [e for e in group if e.check.verdict is Verdict.MISMATCH and id(e) in explained]
        if null:
            yield Claim("GC101", null, partial(null_finding, scene, wrong, proven))
        if wrong:
            yield Claim("GC202", wrong, partial(wrong_finding, scene, null, proven))


def as_sequence(scene: Scene, checks: list[Evidence]) -> Agreement:
    """The counterfactual: the very draws of the forward pass, recorded apart and passed in as a sequence."""
    try:
        with scene.lab.session(scene.case, checks[0].check.backend, scene.arrays) as session:
            draws = session.draws()
    except BackendError as error:
        return Agreement([], f"the draws could not be recorded: {error.message}")
    return agreement(scene, checks, placed_as_sequence(scene.case), {**scene.arrays, **draws})


def placed_as_sequence(case: Case) -> Case:
    moved = {Placement.IN_STEP: Placement.SEQUENCE}
    inputs = tuple(replace(i, placement=moved.get(i.placement, i.placement)) if i.placement else i for i in case.inputs)
    return replace(case, inputs=inputs)


def null_finding(scene: Scene, wrong: list[Evidence], proven: Agreement, checks: list[Evidence]) -> Finding:
    shown = next((e for e in checks if e.estimate is not None), checks[0])
    note = f"{names(wrong)} {verb(wrong)} no error and a wrong gradient: see GC202" if wrong else ""
    return finding(
        "GC101",
        checks,
        "no gradient: the scanned step draws its noise itself",
        numbers=numbers(shown),
        because=("" if proven.explained else "likely ")
        + "the inner gradient of these parameters reads the draw, which the scan does not keep for its backward pass;"
        f' the framework says "{" ".join(shown.check.reason.split())}" (the input that it names is often another one)',
        proof=f"with the same draws passed in as a sequence {proven.words}" if proven.explained else "",
        help=way_out(scene),
        note=note,
        whose="the backend: the forward pass and the model are right",
        blame=use_of_draw(scene.case),
    )


def wrong_finding(scene: Scene, null: list[Evidence], proven: Agreement, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    return finding(
        "GC202",
        checks,
        "gradient is wrong because the backward pass redraws the noise",
        numbers=(*numbers(shown), *sizes(checks)),
        because="the scan's backward pass starts the random state anew at every step, so the carry's adjoint is multiplied by"
        " draws that the forward pass never used",
        proof=f"with the same draws passed in as a sequence {proven.words}",
        help=way_out(scene),
        note="as a non-sequence the gradient is right too, but all steps then share one draw: another model",
        whose=f"the backend; it refuses {names(null)} and stays silent here"
        if null
        else "the backend, which stays silent here",
        blame=use_of_draw(scene.case),
    )


def sizes(checks: list[Evidence]) -> tuple[tuple[str, str], ...]:
    """The size of every silent error, largest first."""
    if len(checks) < 2:
        return ()
    ordered = sorted(checks, key=lambda e: -(e.check.max_rel_error or 0))
    return tuple(
        (f"d {e.check.objective} / d {e.check.parameter}", f"off by {e.check.max_rel_error:.2g} of the largest entry")
        for e in ordered
    )


def names(checks: list[Evidence]) -> str:
    found = list(dict.fromkeys(e.check.parameter for e in checks))
    return ", ".join(found)


def verb(checks: list[Evidence]) -> str:
    return "get" if len({e.check.parameter for e in checks}) > 1 else "gets"


def way_out(scene: Scene) -> str:
    name = next(i.name for i in scene.case.inputs if i.placement is Placement.IN_STEP)
    return (
        f"draw outside the loop:  noise: {{{name}: {{placement: sequence}}}}"
        f"\nor return {name} from the step as an output: the scan then stores it (fresh noise, same model)"
    )


def use_of_draw(case: Case) -> Blame | None:
    name = next(i.name for i in case.inputs if i.placement is Placement.IN_STEP)
    return first_use(case, name)
