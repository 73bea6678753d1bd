"""From evidence to findings: one file per rule, in one ordered list. A rule claims checks that share a cause it can show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from gradcheck.diagnosis.backward_differs import backward_differs
from gradcheck.diagnosis.carry_cut import lost_carry
from gradcheck.diagnosis.changes import prescribed
from gradcheck.diagnosis.codes import CODES, family
from gradcheck.diagnosis.could_not_run import could_not_run
from gradcheck.diagnosis.counterfactual import run_unroll
from gradcheck.diagnosis.cut_by_rule import cut_by_rule
from gradcheck.diagnosis.expectation_gone import expectation_gone
from gradcheck.diagnosis.fingerprints import fingerprints
from gradcheck.diagnosis.forward_disagrees import forward_disagrees
from gradcheck.diagnosis.implicit_draw import implicit_draw
from gradcheck.diagnosis.lost_branch import lost_branch
from gradcheck.diagnosis.missing import missing
from gradcheck.diagnosis.no_reference import no_reference
from gradcheck.diagnosis.noise_in_scan import noise_in_scan
from gradcheck.diagnosis.not_finite import not_finite
from gradcheck.diagnosis.not_linear import not_linear
from gradcheck.diagnosis.not_repeatable import not_repeatable
from gradcheck.diagnosis.over_time import over_time
from gradcheck.diagnosis.own_copy import own_copy
from gradcheck.diagnosis.sampler_parameter import sampler_parameter
from gradcheck.diagnosis.scene import Claim, Scene, finding, worst
from gradcheck.diagnosis.score_function import score_function
from gradcheck.diagnosis.second_order import second_order
from gradcheck.diagnosis.shared_noise import shared_noise
from gradcheck.diagnosis.stopped import stopped
from gradcheck.diagnosis.time_steps import timeline
from gradcheck.diagnosis.truncated_history import cut_history, truncated_history
from gradcheck.diagnosis.wrong_gradient import wrong_gradient
from gradcheck.diagnosis.wrong_rule import wrong_rule, wrong_rule_after_all
from gradcheck.errors import log_traceback
from gradcheck.evidence import Evidence
from gradcheck.model import Case, Check, Expectation, Finding, Severity

RULES: tuple[
    Callable[[Scene], Iterable[Claim]], ...
] = (  # most specific first; a check goes to the first that claims it
    could_not_run,
    not_finite,
    not_repeatable,
    not_linear,
    forward_disagrees,
    noise_in_scan,
    backward_differs,
    truncated_history,
    own_copy,
    stopped,
    implicit_draw,
    wrong_rule,
    sampler_parameter,
    cut_by_rule,
    score_function,
    missing,
    fingerprints,
    cut_history,
    lost_carry,
    wrong_rule_after_all,
    lost_branch,
    wrong_gradient,
    no_reference,
    shared_noise,
    over_time,
    second_order,
)


LOCATED = ("GC201", "GC202", "GC203", "GC205", "GC208")  # wrong gradients: which time steps are


def diagnose(scene: Scene, use_expect: bool) -> list[Finding]:
    """Run the rules, mark what was expected, in place, and return the findings, the unexpected ones first."""
    run_unroll(scene)
    claims: list[Claim] = []
    for rule in RULES:
        for claim in said_by(rule, scene):
            claim.checks = (
                [e for e in claim.checks if id(e) not in scene.taken] if not is_advice(claim.code) else claim.checks
            )
            if claim.checks:
                if not is_advice(claim.code):
                    scene.taken.update(map(id, claim.checks))
                claims.append(claim)
                for evidence in claim.checks:
                    add_cause(evidence, claim.code)
                if claim.code in LOCATED and claim.checks[0].check.order == 1:
                    locate(scene, claim.checks)
    if use_expect:
        for result in (*scene.results, *scene.second):
            for evidence in result.checks:
                evidence.check = replace(evidence.check, expected=is_expected(scene.case, evidence.check))
    found = [part for claim in claims for part in told_apart(scene, claim)]
    if use_expect:
        found.extend(expectation_gone(scene))
    return sorted((unfinished(scene, f) for f in found), key=lambda f: f.expected)


def unfinished(scene: Scene, found: Finding) -> Finding:
    """Where the time for causes ran out, a finding that fails says so: more could have been found."""
    words = scene.lab.closed_words()
    said = any(words in text for text in (found.because, found.proof, found.note))
    if not scene.lab.ran_out or said or found.expected or found.severity is not Severity.ERROR:
        return found
    return replace(found, note="; ".join(part for part in (found.note, words) if part))


def said_by(rule: Callable[[Scene], Iterable[Claim]], scene: Scene) -> Iterator[Claim]:
    """A rule's claims. One that fails is a defect of gradcheck, and told; the verdicts stand, and later rules say the rest."""
    try:
        yield from rule(scene)
    except Exception:
        name = rule.__name__.replace("_", " ")
        scene.failed.append(f"{scene.case.name}: looking for a cause ({name}) failed in gradcheck itself; "
                            f"verdicts are not affected; the traceback is in {log_traceback()}")  # fmt: skip


def locate(scene: Scene, checks: list[Evidence]) -> None:
    """Look at the time steps of the worst of these checks (one look is a compilation, so not of all), and tell what is known."""
    timeline(scene, worst(checks))
    for evidence in checks:
        if (found := evidence.notes.get("timeline")) is not None:
            evidence.check = replace(evidence.check, time_steps=found.range)


def told_apart(scene: Scene, claim: Claim) -> Iterable[Finding]:
    """One finding for the unexpected checks of a claim and one for the expected ones."""
    for expected in (False, True):
        part = [e for e in claim.checks if e.check.expected is expected]
        if part:
            found = replace(described(scene, claim, part), expected=expected)
            if not expected:
                found = replace(found, change=prescribed(scene, part, found))
            why = ("expected", why_expected(scene.case, part))
            yield replace(found, numbers=(*found.numbers, why)) if expected else found


def described(scene: Scene, claim: Claim, part: list[Evidence]) -> Finding:
    """The finding of a part of a claim's checks; where its rule cannot describe them, what is known without it."""
    try:
        return claim.describe(part)
    except Exception:
        code = CODES[claim.code]
        scene.failed.append(f"{scene.case.name}: describing {claim.code} failed in gradcheck itself; the traceback is in "
                            f"{log_traceback()}")  # fmt: skip
        because = "the cause is not established: gradcheck failed to describe it"
        return finding(claim.code, part, code.title, Severity(code.severity), because=because, whose="gradcheck")


def add_cause(evidence: Evidence, code: str) -> None:
    """The cause's code stands after the observed ones; an advice about a passing check stands in the finding alone."""
    if code not in evidence.check.codes:
        evidence.check = replace(evidence.check, codes=(*evidence.check.codes, code))


def is_advice(code: str) -> bool:
    return code.startswith("GC7")


def is_expected(case: Case, check: Check) -> bool:
    return bool(check.codes) and any(matches(entry, check) and says(entry, check) for entry in case.expect)


def why_expected(case: Case, part: Iterable[Evidence]) -> str:
    """The reasons that the case gives for these checks."""
    reasons = [entry.reason for e in part for entry in case.expect if matches(entry, e.check) and says(entry, e.check)]
    return "; ".join(dict.fromkeys(reasons))


def matches(entry: Expectation, check: Check) -> bool:
    """Whether an `expect` entry is about this check, whatever its codes."""
    pairs = ((entry.backends, check.backend), (entry.objectives, check.objective), (entry.parameters, check.parameter))
    of_order = not entry.orders or check.order in entry.orders
    return of_order and all(not allowed or value in allowed for allowed, value in pairs)


def says(entry: Expectation, check: Check) -> bool:
    """Whether an entry names one of the check's codes, or its family."""
    return any(code in entry.codes or family(code) in entry.codes for code in check.codes)


__all__ = ["CODES", "RULES", "diagnose", "is_expected", "matches", "says"]
