"""The JUnit report: a suite per case, a test case per check, so that any CI shows gradients as it shows tests."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gradcheck.model import CaseReport, Check, Finding, Report, Verdict
from gradcheck.reports._shared import derivative, expectation_reason, explains, fails, outcome, printable, write_whole
from gradcheck.reports.text import finding_text, headline

if TYPE_CHECKING:
    from junitparser import JUnitXml, TestCase, TestSuite
    from junitparser.junitparser import FinalResult
    from rich.console import Console


def render(report: Report, console: Console, verbose: int = 0, quiet: bool = False) -> None:
    console.file.write(_serialised(report).decode("ascii"))


def write_file(report: Report, path: str | Path) -> None:
    """Raises UsageError if the file cannot be written; never leaves half of it."""
    write_whole(path, _serialised(report))


def document(report: Report) -> JUnitXml:
    from junitparser import JUnitXml

    report = printable(report)  # XML cannot hold control characters at all
    xml = JUnitXml("gradcheck")
    for suite in _suites(report):
        xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]  # junitparser leaves it without types
    xml.time = report.seconds
    return xml


def _serialised(report: Report) -> bytes:
    stream = io.BytesIO()
    document(report).write(stream)
    text = stream.getvalue().decode("utf-8").replace("encoding='utf-8'", "encoding='us-ascii'", 1)
    return text.encode("ascii", "xmlcharrefreplace") + b"\n"


def _suites(report: Report) -> Iterator[TestSuite]:
    from junitparser import Error

    if report.problems:
        tests = [_test("case files", p.path, Error(p.message, "case-file"), str(p)) for p in report.problems]
        yield _suite("case files", report, tests)
    for case in report.cases:
        tests = [_check(case, check) for check in case.checks]
        yield _suite(case.name, report, [*tests, *_about_no_check(case)], path=case.path, seed=str(case.seed))


def _suite(name: str, report: Report, tests: list[TestCase], **properties: str) -> TestSuite:
    from junitparser import TestSuite

    suite = TestSuite(name)
    suite.timestamp = report.started
    for key, value in properties.items():
        suite.add_property(key, value)
    for test in tests:
        suite.add_testcase(test)
    return suite


def _check(case: CaseReport, check: Check) -> TestCase:
    """A check as a test. Its text is that of the findings that explain it, or the framework's own words."""
    from junitparser import Error, Failure, Skipped

    classname, name = (
        f"{case.name}.{check.backend}",
        f"{derivative(check.order, check.objective)} / d {check.parameter}",
    )
    kind = outcome(check)
    if kind == "passed":
        return _test(classname, name)
    findings = [finding for finding in case.findings if explains(finding, check)]
    reason = check.reason or check.verdict.value.replace("_", " ")
    if kind == "expected":
        reason = "; ".join(filter(None, map(expectation_reason, findings))) or reason
        return _test(classname, name, Skipped(f"expected: {reason}", "expected"), _texts(case, findings))
    message = "; ".join(headline(finding) for finding in findings) or reason
    element = {"failed": Failure, "not_run": Error, "inconclusive": Skipped}[kind]
    result = element(message, ",".join(check.codes) or check.verdict.value)
    return _test(classname, name, result, _texts(case, findings) or reason)


def _about_no_check(case: CaseReport) -> Iterator[TestCase]:
    """Findings that fail the run but belong to no check that does, such as an expectation that no longer occurs."""
    from junitparser import Failure

    wrong = [check for check in case.checks if check.verdict is not Verdict.PASS]
    for finding in filter(fails, case.findings):
        if not any(explains(finding, check) for check in wrong):
            failure = Failure(headline(finding), finding.code)
            yield _test(f"{case.name}.findings", f"{finding.code} {finding.title}", failure, _texts(case, [finding]))


def _texts(case: CaseReport, findings: list[Finding]) -> str:
    return "\n".join(finding_text(case.path, finding) for finding in findings)


def _test(classname: str, name: str, result: FinalResult | None = None, text: str = "") -> TestCase:
    from junitparser import TestCase

    test = TestCase(name, classname, time=0.0)
    if result is not None:
        result.text = text
        test.result = [result]
    return test
