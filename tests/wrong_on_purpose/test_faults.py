"""Each planted fault gives exactly its codes and its exit code; its healthy twin gives none."""

from __future__ import annotations

import json

import pytest

from gradcheck.model import Check, Report, Severity, Verdict

PAIRS = 6  # (objective, parameter) pairs of the case


def codes(report: Report) -> set[tuple[str, ...]]:
    return {check.codes for case in report.cases for check in case.checks}


def verdicts(report: Report) -> set[Verdict]:
    return {check.verdict for case in report.cases for check in case.checks}


def finding_codes(report: Report) -> set[str]:
    return {finding.code for case in report.cases for finding in case.findings}


def checks_of(report: Report, backend: str, case: int = 0) -> list[Check]:
    return [check for check in report.cases[case].checks if check.backend == backend]


def assert_clean(checks: list[Check]) -> None:
    assert {(c.verdict, c.codes) for c in checks} == {(Verdict.PASS, ())}
    assert len(checks) == PAIRS


# --- healthy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["", "complex", "chatter"])
def test_a_healthy_backend_has_no_code(bench, fault):
    report = bench.verdicts(fault)
    assert_clean(checks_of(report, "fake"))
    assert (report.exit_code, finding_codes(report), report.warnings, report.rerun) == (0, set(), (), "")
    assert all(0 < c.detection_limit < 1e-3 * c.analytic_norm for c in report.cases[0].checks)


def test_complex_step_is_the_reference_where_it_is_offered(bench):
    report = bench.verdicts("complex")
    assert {c.reference for c in report.cases[0].checks} == {"complex step"}
    assert {c.reference for c in bench.verdicts("").cases[0].checks} == {"finite differences"}


def test_chatter_does_not_reach_the_output(bench):
    done = bench.cli(bench.case("chatter"), "-b", "fake", "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["exit_code"] == 0


# --- wrong, missing, not finite, not repeatable: exit 1 ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "verdict", "told"),
    [
        ("zero", Verdict.MISMATCH, ["GC201"]),
        ("scaled", Verdict.MISMATCH, ["GC201", "GC204"]),
        ("one_entry", Verdict.MISMATCH, ["GC201"]),
        ("negated", Verdict.MISMATCH, ["GC201", "GC204"]),
        ("bad_step", Verdict.MISMATCH, ["GC201"]),
        ("nan", Verdict.NONFINITE, ["GC301"]),
        ("nan_forward", Verdict.NONFINITE, ["GC303"]),
        ("null", Verdict.NULL, ["GC102"]),
        ("refused", Verdict.NULL, ["GC105"]),
        ("disconnected", Verdict.DISCONNECTED, ["GC103"]),
        ("new_value", Verdict.NONDETERMINISTIC, ["GC501"]),
        ("new_gradient", Verdict.NONDETERMINISTIC, ["GC502"]),
    ],
)
def test_a_fault_gives_exactly_its_codes(bench, fault, verdict, told):
    """The observed code, and after it that of the cause where one is known; the finding has the last."""
    report = bench.verdicts(fault)
    assert verdicts(report) == {verdict}
    assert codes(report) == {tuple(told)}
    assert finding_codes(report) == {told[-1]}
    assert report.exit_code == 1
    assert "-b fake" in report.rerun
    assert all(f.severity is Severity.ERROR and f.because and f.help and f.whose for f in report.cases[0].findings)


@pytest.mark.parametrize("fault", ["ignores_cotangent", "squares_cotangent", "clips"])
def test_a_reverse_rule_that_is_not_linear_is_wrong_though_it_is_right_at_one(bench, fault):
    report = bench.verdicts(fault)
    assert codes(report) == {("GC206",)}
    assert verdicts(report) == {Verdict.MISMATCH}
    (found,) = report.cases[0].findings
    assert (found.code, found.severity, report.exit_code) == ("GC206", Severity.ERROR, 1)
    assert "from 1 it agrees with the reference" in found.because
    expected = {"ignores_cotangent": -1 / 8, "squares_cotangent": -8, "clips": 2 / 8}[fault]
    told = dict(found.numbers)
    one = float(told["at cotangent 1"].split()[0])
    assert float(told["at cotangent -8"].split()[-1]) == pytest.approx(expected * one, rel=1e-3)
    for check in report.cases[0].checks:
        largest = max(1, abs(expected))
        assert check.max_rel_error == pytest.approx(abs(1 - expected) / largest, rel=1e-9)
        assert check.detection_limit is None


def test_a_rule_that_is_wrong_and_not_linear_has_both_codes(bench):
    report = bench.verdicts("adds_to_cotangent")
    assert codes(report) == {("GC201", "GC206")}
    assert finding_codes(report) == {"GC206"}


def test_a_gradient_that_leaves_the_range_of_numbers_is_linear_all_the_same(bench):
    assert_clean(checks_of(bench.verdicts("overflows"), "fake"))


@pytest.mark.parametrize("fault", ["scaled", "one_entry", "zero"])
def test_complex_step_finds_it_too(bench, fault):
    """The faulty backend beside one whose reference is complex step: each is judged on its own."""
    report = bench.verdicts({"fake": fault, "other": "complex"}, backends=("fake", "other"))
    assert {c.codes for c in checks_of(report, "fake")} == {("GC201", "GC204") if fault == "scaled" else ("GC201",)}
    assert_clean(checks_of(report, "other"))


def test_the_frameworks_reason_is_told(bench):
    report = bench.verdicts("refused")
    assert "no gradient of W_x" in report.cases[0].checks[0].reason
    assert any("no gradient of W_x" in finding.because for finding in report.cases[0].findings)


def test_a_scan_that_is_wrong_where_its_unroll_is_right(bench):
    report = bench.verdicts("scaled@scan", backends=("fake", "fake-scan"))
    assert {c.codes for c in checks_of(report, "fake-scan")} == {("GC201", "GC208")}
    assert_clean(checks_of(report, "fake"))
    assert (report.exit_code, finding_codes(report)) == (1, {"GC208"})


def test_the_one_wrong_entry_is_named(bench):
    report = bench.verdicts("entry W_h 6 1e-3")
    wrong = [c for c in report.cases[0].checks if c.verdict is Verdict.MISMATCH]
    assert [(c.objective, c.parameter, c.worst.index) for c in wrong] == [("hidden", "W_h", (1, 2))]
    assert wrong[0].max_abs_error == pytest.approx(1e-3, rel=1e-4)
    assert wrong[0].worst.analytic - wrong[0].worst.reference == pytest.approx(1e-3, rel=1e-4)


def test_several_wrong_entries_are_named(bench):
    report = bench.verdicts("entries W_h 6=1e-3,9=-2e-3")
    (wrong,) = [c for c in report.cases[0].checks if c.verdict is Verdict.MISMATCH]
    assert (wrong.wrong.count, wrong.wrong.exact) == (2, True)
    assert [e.index for e in wrong.wrong.entries] == [(2, 1), (1, 2)]  # the worst first
    (finding,) = report.cases[0].findings
    assert finding.title == "2 entries of 16 in the gradient are wrong"
    assert dict(finding.numbers)["wrong entries"] == "2 of 16: W_h[2, 1], W_h[1, 2]"
    assert len(finding.details) == 2


def test_a_wrong_row_is_named_in_the_headline(bench):
    report = bench.verdicts("row W_h 2 1.01")
    (finding,) = report.cases[0].findings
    assert (finding.code, finding.title) == ("GC201", "row 2 of W_h is 1.01 times the right one")
    assert dict(finding.numbers)["wrong entries"] == "all of row 2 of W_h (4 entries); each is 1.01 times the right one"


DEAD = {
    "parameters": {
        "W_x": "{shape: [input, hidden], init: glorot}",
        "W_h": "{shape: [hidden, hidden], init: glorot}",
        "b": "{shape: [hidden], init: zeros}",
        "W_o": "{shape: [hidden, input], init: glorot}",
        "unused": "{shape: [3], init: normal}",
    },
    "objectives": {"hidden": "{of: h, reduce: sum, wrt: [unused]}"},
}


@pytest.mark.parametrize(("fault", "verdict"), [("disconnected", Verdict.DISCONNECTED), ("", Verdict.PASS)])
@pytest.mark.parametrize("strict", [False, True])
def test_a_dead_parameter_is_advice(bench, fault, verdict, strict):
    report = bench.run(bench.case(fault, **DEAD), strict=strict)
    assert [(c.verdict, c.codes) for c in report.cases[0].checks] == [(verdict, ("GC104",))]
    assert [f.severity for f in report.cases[0].findings] == [Severity.ADVICE]
    assert report.exit_code == 0


def test_forward_mode_that_agrees_with_the_differences_says_so(bench):
    report = bench.verdicts("one_entry forward")
    assert verdicts(report) == {Verdict.MISMATCH}
    assert all(0 < check.forward_mode <= 1e-2 for check in report.cases[0].checks)
    for finding in report.cases[0].findings:
        assert "agrees with the differences to" in dict(finding.numbers)["forward mode"]
        assert "not with the reverse pass" in dict(finding.numbers)["forward mode"]


@pytest.mark.parametrize("fault", ["one_entry", "one_entry forward_dies"])
def test_forward_mode_that_cannot_be_had_changes_no_verdict(bench, fault):
    report = bench.verdicts(fault)
    assert codes(report) == {("GC201",)}
    assert {check.forward_mode for check in report.cases[0].checks} == {None}
    assert all("forward mode" not in dict(finding.numbers) for finding in report.cases[0].findings)
    assert report.exit_code == 1


def test_a_check_that_passes_asks_no_forward_mode(bench):
    assert_clean(checks_of(bench.verdicts("healthy forward_dies"), "fake"))


def test_second_order_is_asked_of_gradients_that_pass_and_one_line_says_how_many_do_not(bench):
    report = bench.run(bench.case("entry W_h 6 1e-3"), order=2)
    first = [c for c in report.cases[0].checks if c.order == 1]
    second = [c for c in report.cases[0].checks if c.order == 2]
    assert {(c.objective, c.parameter) for c in first} - {(c.objective, c.parameter) for c in second} == {
        ("hidden", "W_h")
    }
    assert (
        report.warnings[0]
        == "second order: 1 of 6 checks left out: it is asked of portable steps, where the gradient passes"
    )
    assert {(c.verdict, c.codes) for c in second} == {
        (Verdict.NOT_RUN, ("GC905",))
    }  # the fake offers none, and says so
    assert "offers no second derivatives" in second[0].reason
    assert {(f.code, f.order) for f in report.cases[0].findings} == {("GC201", 1), ("GC905", 2)}
    assert report.exit_code == 1


# --- could not run: exit 3, and nothing else lost ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "words", "limits"),
    [
        ("wrong_shape", "GC905", "the gradient of W_x has shape (1, 12), not (3, 4)", {}),
        ("forgets_one", "GC905", "neither the gradient of hidden by b nor a reason", {}),
        ("short_answer", "GC905", "values have shape", {}),
        ("text", "GC905", "holds Python objects", {}),
        ("exits", "GC902", "exit status 7", {}),
        ("aborts", "GC902", "signal 6", {}),
        ("killed", "GC902", "signal 9", {}),
        ("hangs", "GC903", "within 2 s", {"timeout": 2}),
        ("hog", "GC904", "beyond 0.4 GB", {"memory": 0.4}),
    ],
)
def test_a_backend_that_fails_takes_nothing_along(bench, fault, code, words, limits):
    """The other backend of the case is judged, and the failed one is there again for the next case."""
    first, second = bench.case({"fake": fault}, name="first"), bench.case(name="second")
    report = bench.run(first, second, backends=("fake", "other"), **limits)
    failed = checks_of(report, "fake")
    assert {(c.verdict, c.codes) for c in failed} == {(Verdict.NOT_RUN, (code,))}
    assert len(failed) == PAIRS
    assert words in failed[0].reason
    assert [f.code for f in report.cases[0].findings] == [code]
    assert words in report.cases[0].findings[0].because
    assert_clean(checks_of(report, "other"))
    assert_clean(checks_of(report, "fake", case=1))
    assert_clean(checks_of(report, "other", case=1))
    assert report.exit_code == 3
    assert "logs are kept in" in report.warnings[-1]


def test_a_crash_quotes_the_last_words(bench):
    assert "last words" in bench.verdicts("exits").cases[0].findings[0].because


def test_an_exception_in_the_step_has_its_place(bench):
    report = bench.run(bench.case(step="raises"))
    assert codes(report) == {("GC905",)}
    (finding,) = report.cases[0].findings
    assert "the step does not like its weights" in finding.because
    line = 1 + next(n for n, text in enumerate((bench.folder / "rnn.py").read_text().splitlines()) if "raise " in text)
    assert (finding.blame.file.endswith("rnn.py"), finding.blame.line) == (True, line)
    assert finding.blame.text.startswith("raise ValueError")
    assert report.exit_code == 3


# --- one backend against the others -----------------------------------------------------------------------------------


def test_the_outlier_of_three_is_named(bench):
    report = bench.verdicts({"other": "shifted 0.5"}, backends=("fake", "other", "third"))
    for backend in ("fake", "third"):
        assert_clean(checks_of(report, backend))
    assert {(c.verdict, c.codes) for c in checks_of(report, "other")} == {(Verdict.MISMATCH, ("GC601",))}
    assert {f.backends for f in report.cases[0].findings} == {("other",)}
    assert all("other" in f.title for f in report.cases[0].findings)
    assert (finding_codes(report), report.exit_code) == ({"GC601"}, 1)


def test_of_two_nobody_can_be_called_the_outlier(bench):
    report = bench.verdicts({"other": "shifted 0.5"}, backends=("fake", "other"))
    assert codes(report) == {("GC601",)}
    assert {f.backends for f in report.cases[0].findings} == {("fake", "other")}
    assert report.exit_code == 1


def test_a_forward_that_is_not_finite_is_no_outlier(bench):
    report = bench.verdicts({"other": "nan_forward"}, backends=("fake", "other", "third"))
    assert {c.codes for c in checks_of(report, "other")} == {("GC303",)}
    for backend in ("fake", "third"):
        assert_clean(checks_of(report, backend))


# --- expected faults, and the command line ----------------------------------------------------------------------------


def test_what_is_expected_passes_and_what_is_gone_fails(bench):
    expect = '[{backend: fake, code: GC2xx, reason: "known"}]'
    wrong, right = bench.case("scaled", name="wrong", expect=expect), bench.case(name="right", expect=expect)
    assert bench.run(wrong).exit_code == 0
    assert bench.run(wrong, use_expect=False).exit_code == 1
    gone = bench.run(right)
    assert (gone.exit_code, finding_codes(gone)) == (1, {"GC801"})


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("scaled", 1, "error[GC204]: the gradient is 1.001 times the right one"),
        ("nan", 1, "GC301"),
        ("refused", 1, "GC105"),
        ("exits", 3, "GC902"),
        ("wrong_shape", 3, "GC905"),
        ("", 0, "6 passed"),
    ],
)
def test_the_command_line_says_so(bench, fault, status, words):
    done = bench.cli(bench.case(fault), "-b", "fake", "--json", "report.json")
    assert done.returncode == status, done.stdout + done.stderr
    assert words in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert json.loads((bench.folder / "report.json").read_text())["exit_code"] == status


def test_fail_fast_stops_after_the_first_failing_case(bench):
    cases = [bench.case(name="a_right"), bench.case("scaled", name="b_wrong"), bench.case(name="c_right")]
    done = bench.cli(*cases, "-b", "fake", "-x", "--json", "-")
    assert done.returncode == 1
    assert [case["name"] for case in json.loads(done.stdout)["cases"]] == ["a_right", "b_wrong"]


def test_a_truncated_history_is_told_with_its_boundary(bench):
    """No option says that the reverse pass stops early: the time steps do, and the k is the right one."""
    boundaries = range(1, 11)
    wrt = {"out": "{of: h, reduce: dot, wrt: [W_x, b]}"}
    paths = [bench.case(f"history {k}", name=f"first_{k}", objectives=wrt) for k in boundaries]
    for path in paths:
        path.write_text(path.read_text().replace("steps: 5", "steps: 12"))
    report = bench.run(*paths)
    assert report.exit_code == 1
    told = {case.name: case for case in report.cases}
    for k in boundaries:
        case = told[f"first_{k}"]
        (finding,) = case.findings
        assert (finding.code, finding.parameters) == ("GC203", ("W_x", "b"))
        assert f"steps 0..{k - 1} are missing" in finding.because
        assert f"those of steps {k}..11 are right" in finding.because
        assert {check.time_steps for check in case.checks} == {(0, k - 1)}
        cells = dict(finding.numbers)["time steps"].partition("   ")[0].replace(" ", "")
        assert cells == "0" * k + "." * (12 - k)


@pytest.mark.parametrize(("parameter", "cells"), [("W_x", "..0.."), ("W_h", "-.0.."), ("x", "..0..")])
def test_one_bad_step_is_told(bench, parameter, cells):
    """W_h: the carry starts at 0. x: a sequence moves step by step, too."""
    report = bench.run(bench.case("bad_step", objectives={"out": f"{{of: h, reduce: dot, wrt: [{parameter}]}}"}))
    (check,) = report.cases[0].checks
    assert check.time_steps == (2, 2)
    assert dict(report.cases[0].findings[0].numbers)["time steps"].startswith(cells)


def test_time_steps_in_float32(bench):
    """The reverse pass in float32 is held against differences in float64, within what its rounding allows."""
    path = bench.case("history 2", objectives={"out": "{of: h, reduce: dot, wrt: [W_x]}"})
    path.write_text(path.read_text() + "dtype: float32\n")
    report = bench.run(path)
    (finding,) = report.cases[0].findings
    assert (finding.code, report.cases[0].checks[0].time_steps) == ("GC203", (0, 1))
