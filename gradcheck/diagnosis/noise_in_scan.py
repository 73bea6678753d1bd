"""GC101 and GC202: noise drawn inside a scanned step. Some gradients are refused (null), others are silently wrong.

The backward scan would need the draws of the forward pass. Where a parameter's own inner gradient reads the draw, the framework
refuses. Where only the carry's adjoint passes through it, the backward scan draws anew and the gradient is wrong without a word.
Shown by recording the draws and passing them in as a sequence: the same model with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from gradcheck.diagnosis.blame import nodes_of
from gradcheck.diagnosis.counterfactual import Agreement, agreement, failing, held_against
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, first_use, line_blame, numbers, worst
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Blame, Case, Finding, Gradient, Placement, Verdict
from gradcheck.session import Arrays

SHOWN = 3  # ops, or sizes of errors, that are named


@dataclass
class Inside:
    """What is seen inside the scan of one backend.

    recorded: the draws of the forward pass, or None and why not. draws, reads: see `explain_draws` of backends/README.md.
    composed: gradients by the ops' own rules on the values of the forward pass, without the scan's backward pass.
    """

    recorded: Arrays | None = None
    why: str = ""
    draws: list[dict[str, Any]] = field(default_factory=list)
    reads: list[dict[str, Any]] = field(default_factory=list)
    composed: dict[tuple[str, str], Gradient] = field(default_factory=dict)

    def reading(self, evidence: Evidence) -> dict[str, Any] | None:
        """How the inner gradient of a check's parameter reads a draw; None if it does not, or that is not known."""
        pair = (evidence.check.objective, evidence.check.parameter)
        return next((r for r in self.reads if r["reads"] and (r["objective"], r["parameter"]) == pair), None)

    def carry(self, checks: Iterable[Evidence]) -> dict[str, Any] | None:
        """How the cotangent of a carry reads a draw, for the objective of one of these checks."""
        objectives = {e.check.objective for e in checks}
        return next((r for r in self.reads if r["reads"] and not r["parameter"] and r["objective"] in objectives), None)


# gradients that are null, that are wrong, what was seen inside of the scan, and the proof
Seen = tuple[list[Evidence], list[Evidence], Inside, str]


def noise_in_scan(scene: Scene) -> Iterable[Claim]:
    for null, wrong, inside, proof in together(seen(scene)):
        if null:
            yield Claim("GC101", null, partial(null_finding, scene, wrong, inside, proof))
        if wrong:
            yield Claim("GC202", wrong, partial(wrong_finding, scene, null, inside, proof))


def seen(scene: Scene) -> Iterable[Seen]:
    """What each backend shows."""
    for group in by(failing(scene.checks(Verdict.NULL, Verdict.MISMATCH)), lambda e: e.check.backend):
        name = group[0].check.backend
        if scene.lab.catalog[name][1] != "scan" and not scene.case.native:  # a native step may hold a scan of its own
            continue
        if not (scene.case.draws_in_step or nodes_of(scene, name, ("draw",))):
            continue
        inside = looked_into(scene, name)
        if not (scene.case.draws_in_step or inside.draws):
            continue
        proven, by_ops = as_sequence(scene, group, inside), op_by_op(scene, group, inside)
        explained = {id(e) for e in [*proven.explained, *by_ops.explained]}
        named_by_draw(group, proven, inside)
        null = [e for e in group if e.check.codes[0] == "GC101"]
        wrong = [e for e in group if e.check.verdict is Verdict.MISMATCH and id(e) in explained]
        if not scene.case.draws_in_step:  # a scan may be wrong for reasons of its own
            wrong = [e for e in wrong if inside.carry([e]) is not None]
        proof = "; ".join(a.words for a in (proven, by_ops) if a.explained)
        yield null, wrong, inside, proof


def together(every: Iterable[Seen]) -> Iterable[Seen]:
    """The same draws of the same native model, null or wrong in both of its rollouts: one cause."""
    found: dict[object, Seen] = {}
    for null, wrong, inside, proof in every:
        places = frozenset((d["op"], d["file"], d["line"]) for d in inside.draws if d["file"])
        pairs = frozenset((e.check.verdict, e.check.objective, e.check.parameter) for e in [*null, *wrong])
        first = found.setdefault((places, pairs) if places else len(found), ([], [], inside, proof))
        first[0].extend(null)
        first[1].extend(wrong)
    return found.values()


def named_by_draw(checks: list[Evidence], proven: Agreement, inside: Inside) -> None:
    """Correct the code of null gradients: GC101 if a draw is the reason, GC102 if an op of its own has no reverse rule."""
    missing = {id(e) for e in proven.missing}
    for evidence in checks:
        code = evidence.check.codes[0]
        if code == "GC101" and id(evidence) in missing:  # null without any draw in the step
            code = "GC102"
        elif code == "GC102" and inside.reading(evidence) is not None:
            code = "GC101"
        evidence.check = replace(evidence.check, codes=(code, *evidence.check.codes[1:]))


def looked_into(scene: Scene, name: str) -> Inside:
    """Record the draws, and look into the scan where the backend can. What fails is left out."""
    found = Inside()
    try:
        with scene.lab.session(scene.case, name, scene.arrays) as session:
            if scene.case.draws_in_step:
                found.recorded = session.draws()
            if session.can("explain_draws"):
                told = session.explain_draws()
                found.draws, found.reads = told["draws"], told["reads"]
            if session.can("composed") and (scene.case.draws_in_step or found.draws):
                found.composed = session.composed()
    except BackendError as error:
        found.why = error.message
    return found


def as_sequence(scene: Scene, checks: list[Evidence], inside: Inside) -> Agreement:
    """The counterfactual: the very draws of the forward pass, recorded apart and passed in as a sequence."""
    if inside.recorded is None:
        return Agreement([], f"the draws could not be recorded: {inside.why}")
    found = agreement(scene, checks, placed_as_sequence(scene.case), {**scene.arrays, **inside.recorded})
    return replace(found, words=f"with the same draws passed in as a sequence {found.words}")


def op_by_op(scene: Scene, checks: list[Evidence], inside: Inside) -> Agreement:
    """The same scan backward by its ops' own rules, each on the values that its forward pass had."""
    if not inside.composed:
        return Agreement([], "")
    found = held_against(scene, checks, inside.composed)
    return replace(
        found,
        words=f"composed of the ops' own rules, on the draws of the forward pass, {found.words}: only the scan is wrong",
    )


def placed_as_sequence(case: Case) -> Case:
    moved = {Placement.IN_STEP: Placement.SEQUENCE}
    inputs = tuple(replace(i, placement=moved.get(i.placement, i.placement)) if i.placement else i for i in case.inputs)
    return replace(case, inputs=inputs)


def null_finding(scene: Scene, wrong: list[Evidence], inside: Inside, proof: str, checks: list[Evidence]) -> Finding:
    shown = next((e for e in checks if e.estimate is not None), checks[0])
    note = f"{names(wrong)} {verb(wrong)} no error and a wrong gradient: see GC202; " if wrong else ""
    read = through(inside, checks)
    return finding(
        "GC101",
        checks,
        "no gradient: the scanned step draws its noise itself",
        numbers=numbers(shown),
        because=("" if proof or read else "likely ")
        + f"the inner gradient of {read or 'these parameters reads the draw'}; the scan does not keep the draw for its backward"
        " pass",
        proof=proof,
        help=way_out(scene, checks),
        note=note + OTHER_MODEL,
        whose="the backend: the forward pass and the model are right",
        blame=use_of_draw(scene.case, inside),
    ).saying("framework", f'"{" ".join(shown.check.reason.split())}" (the input that it names is often another one)')


def wrong_finding(scene: Scene, null: list[Evidence], inside: Inside, proof: str, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    carry = inside.carry(checks)
    passes = "so the carry's adjoint is"
    if carry:
        passes = f"and the carry's adjoint reads the draw through {op_at(carry)}: it is"
    silent = [e for e in checks if inside.reads and inside.reading(e) is None]
    return finding(
        "GC202",
        checks,
        "gradient is wrong because the backward pass redraws the noise",
        numbers=(*numbers(shown), *sizes(checks)),
        because=f"the scan's backward pass starts the random state anew at every step, {passes} multiplied by draws that the"
        " forward pass never used"
        + (f"; the inner gradient of {names(silent)} itself reads no draw, so nothing is refused" if silent else ""),
        proof=proof,
        help=way_out(scene, checks),
        note=OTHER_MODEL,
        whose=f"the backend; it refuses {names(null)} and stays silent here"
        if null
        else "the backend, which stays silent here",
        blame=use_of_draw(scene.case, inside),
    )


def through(inside: Inside, checks: list[Evidence]) -> str:
    """ "W, U reads the draw through mul at step.py:31, b through tanh at step.py:33"; "" where that is not known."""
    groups: dict[str, list[Evidence]] = {}
    for evidence in checks:
        if (row := inside.reading(evidence)) is not None:
            groups.setdefault(op_at(row), []).append(evidence)
    told = [f"{names(group)} through {place}" for place, group in list(groups.items())[:SHOWN]]
    more = len(groups) - len(told)
    return ", that of ".join(told).replace(" through ", " reads the draw through ", 1) + (
        f" and {more} more" if more else ""
    )


def op_at(row: dict[str, Any]) -> str:
    """An op and the line of its call."""
    if not row["op"]:
        return "an op that is not known"
    return f"{row['op']} at {Path(row['file']).name}:{row['line']}" if row["file"] else str(row["op"])


def sizes(checks: list[Evidence]) -> tuple[tuple[str, str], ...]:
    """The size of every silent error, largest first."""
    if len(checks) < 2:
        return ()
    ordered = sorted(checks, key=lambda e: -(e.check.max_rel_error or 0))
    rows = [
        (f"d {e.check.objective} / d {e.check.parameter}", f"off by {e.check.max_rel_error:.2g} of the largest entry")
        for e in ordered[:SHOWN]
    ]
    rest = ordered[SHOWN:]
    return (*rows, *[(f"and {len(rest)} more", f"off by {rest[0].check.max_rel_error:.2g} at most")] * bool(rest))


def names(checks: list[Evidence]) -> str:
    found = list(dict.fromkeys(e.check.parameter for e in checks))
    return ", ".join(found)


def verb(checks: list[Evidence]) -> str:
    return "get" if len({e.check.parameter for e in checks}) > 1 else "gets"


OTHER_MODEL = "as a non-sequence the gradient is right too, but all steps then share one draw: another model"


def way_out(scene: Scene, checks: list[Evidence]) -> str:
    """The ways out that keep the model, with what they cost."""
    backend, _ = scene.lab.catalog[checks[0].check.backend]
    name = next((i.name for i in scene.case.inputs if i.placement is Placement.IN_STEP), None)
    ways = [
        f"draw outside the loop:  noise: {{{name}: {{placement: sequence}}}}"
        if name
        else "draw the noise of all steps outside the loop and pass it in as a sequence (fresh noise at every step)",
        f"or return {name or 'the draw'} from the step as an output: the scan then stores it (fresh noise, same model)",
    ]
    if backend.stored_draws:
        ways.append(f"or {backend.stored_draws}")
    return "\n".join([*ways, "or unroll the loop (same numbers; the graph grows with the steps)"])


def use_of_draw(case: Case, inside: Inside) -> Blame | None:
    """The line that draws, where the step does; else the first line that reads what the harness drew for it."""
    for draw in inside.draws:
        if draw["file"]:
            return line_blame(draw["file"], draw["line"], draw["op"])
    name = next((i.name for i in case.inputs if i.placement is Placement.IN_STEP), None)
    return first_use(case, name) if name else None
