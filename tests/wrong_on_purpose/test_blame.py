"""Looking into a rollout op by op: the wrong op is named, right ones are cleared; what fails there spoils no finding."""

from __future__ import annotations

import time

import pytest

from gradcheck.model import Finding, Report, Severity, Verdict


def only(report: Report) -> Finding:
    (case,) = report.cases
    (found,) = case.findings
    return found


def codes(report: Report) -> set[tuple[str, ...]]:
    return {check.codes for case in report.cases for check in case.checks if check.verdict is not Verdict.PASS}


def test_a_wrong_rule_is_named_with_its_line_and_proven(bench):
    report = bench.verdicts("bad_step ops=wrong")
    found = only(report)
    assert (found.code, found.severity) == ("GC206", Severity.ERROR)
    assert codes(report) == {("GC201", "GC206")}
    assert found.blame is not None
    assert (found.blame.file.endswith("rnn.py"), found.blame.line, found.blame.column) == (True, 7, 9)
    assert found.blame.text == 'return {"h": h, "scaled": scale * h, "out": scale * (h @ W_o) ** 2}'
    assert found.blame.op == "custom_vjp gain"
    assert "-3 by input 0" in found.because
    assert "differences of it alone give 3" in found.because
    assert "rnn.py:5" in found.because
    assert "derivative of its own forward in place of the rule, all" in found.proof
    assert found.note.startswith("the other op is right")


def test_a_rule_that_is_not_linear_is_found_by_its_op_alone(bench):
    found = only(bench.verdicts("clips ops=nonlinear"))
    assert found.code == "GC206"
    assert found.title == "wrong reverse rule of custom_vjp gain: not linear in the cotangent"
    assert "alone: its reverse rule gives 3.5 by input 0" in found.because
    assert (found.blame.line, found.blame.op) == (7, "custom_vjp gain")


def test_a_factor_keeps_its_code_and_gets_the_line(bench):
    report = bench.verdicts("scaled ops=wrong")
    found = only(report)
    assert (found.code, codes(report)) == ("GC204", {("GC201", "GC204", "GC206")})
    assert (found.blame.line, found.blame.op) == (7, "custom_vjp gain")
    assert "alone: its reverse rule gives -3" in found.proof


def test_where_every_op_is_right_the_composition_is_not(bench):
    found = only(bench.verdicts("bad_step ops=right"))
    assert found.code == "GC201"
    assert "each of the 2 ops is right" in found.because
    assert "the gradient that they compose one by one; the backend returns another" in found.because


def test_a_rule_that_is_wrong_at_one_step_alone_is_found(bench):
    """Of five steps the last, first and middle one are looked at first; the ops' own rules do not compose the right gradient."""
    found = only(bench.verdicts("bad_step ops=late"))
    assert (found.code, found.blame.line) == ("GC206", 7)
    assert "at step 3, where differences" in found.because


def test_ops_that_are_right_and_compose_what_is_wrong_are_said_to(bench):
    found = only(bench.verdicts("bad_step ops=never"))
    assert found.code == "GC201"
    assert "at the steps that were looked at, and yet they compose a wrong gradient" in found.because


def test_a_rule_that_lets_gradients_through_steps_is_a_surrogate(bench):
    report = bench.verdicts("bad_step ops=flat")
    found = only(report)
    assert (found.code, found.severity, report.exit_code) == ("GC703", Severity.ADVICE, 0)
    assert codes(report) == set()
    assert found.blame.line == 7


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("raises", "custom_vjp gain at rnn.py:7 cannot be looked at: ValueError: no such op"),
        ("opaque", "custom_vjp gain at rnn.py:7 cannot be looked at: a callback into Python"),
        ("dies", "the process died (exit status 5)"),
    ],
)
def test_what_cannot_be_looked_at_leaves_the_finding_and_says_why(bench, mode, said):
    report = bench.verdicts(f"bad_step ops={mode}")
    found = only(report)
    assert (found.code, report.exit_code) == ("GC201", 1)
    assert "the cause is not established" in found.because
    assert said in found.because


def test_a_line_that_is_not_on_disk_is_named_all_the_same(bench):
    found = only(bench.verdicts("bad_step ops=wrong-elsewhere"))
    assert found.code == "GC206"
    assert (found.blame.file, found.blame.line, found.blame.text) == (
        "/nowhere/gone.py",
        7,
        "(this line is not on disk)",
    )


def test_a_diagnosis_that_is_not_finished_says_so_and_stays_within_its_time(bench):
    started = time.monotonic()
    report = bench.run(bench.case("bad_step ops=slow"), diagnose_seconds=1.0)
    assert time.monotonic() - started < 15  # six looks of 0.6 s and a start would be more than the diagnosis may take
    found = only(report)
    assert found.code == "GC201"
    assert "not finished: the 1 s of --diagnose-seconds are used up; 1 of 2 ops were looked at" in found.because
    assert report.warnings == ()


def test_no_time_for_a_diagnosis_leaves_the_verdicts(bench):
    report = bench.run(bench.case("bad_step ops=wrong"), diagnose_seconds=0.0)
    assert (only(report).code, report.exit_code) == ("GC201", 1)
    assert "not finished" in only(report).because


# --- not finite -------------------------------------------------------------------------------------------------------


def test_a_branch_that_is_not_taken(bench):
    report = bench.verdicts("nan ops=branch")
    found = only(report)
    assert (found.code, codes(report)) == ("GC301", {("GC301",)})
    assert "where at rnn.py:7 takes its other side there" in found.because
    assert "with what that side contributes left out, all" in found.proof
    assert (found.blame.line, found.blame.op) == (6, "tanh")
    assert ("born", "tanh at step 2: input 0 exactly, cotangent in 0 exactly, out nan") in found.numbers


def test_a_singular_point(bench):
    report = bench.verdicts("nan ops=singular")
    found = only(report)
    assert (found.code, codes(report)) == ("GC302", {("GC301", "GC302")})
    assert found.blame.line == 6


def test_a_backend_that_knows_only_the_place(bench):
    found = only(bench.verdicts("nan ops=bare"))
    assert found.code == "GC301"
    assert "likely" in found.because
    assert found.blame.line == 6


def test_a_diagnosis_that_fails_itself_spoils_no_verdict(bench, monkeypatch):
    """A rule that raises before it says anything, and one that cannot describe what it claims."""
    from gradcheck import diagnosis

    def raising(scene):
        raise RuntimeError("planted")
        yield

    monkeypatch.setattr(diagnosis, "RULES", (raising, *diagnosis.RULES))
    report = bench.verdicts("bad_step ops=wrong")
    assert (only(report).code, report.exit_code) == ("GC206", 1)
    (warning,) = report.warnings
    assert "looking for a cause (raising) failed in gradcheck itself" in warning

    def speechless(scene):
        checks = scene.unexplained(Verdict.MISMATCH)
        yield diagnosis.Claim("GC201", checks, lambda part: 1 / 0)

    monkeypatch.setattr(diagnosis, "RULES", (speechless,))
    report = bench.verdicts("bad_step ops=wrong")
    found = only(report)
    assert (found.code, found.severity, report.exit_code) == ("GC201", Severity.ERROR, 1)
    assert "the cause is not established" in found.because
    assert codes(report) == {("GC201",)}
