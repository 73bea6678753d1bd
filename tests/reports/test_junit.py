"""The JUnit report, read back with junitparser."""

from __future__ import annotations

from pathlib import Path

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase
from syrupy.assertion import SnapshotAssertion

from gradcheck.errors import UsageError
from gradcheck.model import Report
from gradcheck.reports.json import document as counted
from gradcheck.reports.junit import write_file


def read_back(report: Report, path: Path) -> JUnitXml:
    write_file(report, path / "report.xml")
    return JUnitXml.fromfile(str(path / "report.xml"))


def by_name(report: Report, path: Path) -> dict[tuple[str, str], TestCase]:
    return {(test.classname, test.name): test for suite in read_back(report, path) for test in suite}


def test_golden(examples: dict[str, Report], tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    write_file(examples["section_9"], tmp_path / "report.xml")
    assert (tmp_path / "report.xml").read_text() == snapshot


def test_every_check_is_a_test_and_counts_agree(example: Report, tmp_path: Path) -> None:
    xml, summary = read_back(example, tmp_path), counted(example)["summary"]
    stale = sum(finding.code == "GC801" for case in example.cases for finding in case.findings)
    unattached = xml.tests - summary["checks"] - len(example.problems)
    assert stale <= unattached <= stale + 1  # a finding that no failing check carries still fails here
    assert xml.failures == summary["failed"] + unattached
    assert xml.errors == summary["not_run"] + len(example.problems)
    assert xml.skipped == summary["expected"] + summary["inconclusive"]


def test_both_orders_of_a_check_have_names_of_their_own(examples: dict[str, Report], tmp_path: Path) -> None:
    tests = by_name(examples["second_order"], tmp_path)
    assert tests["rnn-vae.jax-scan", "d hidden / d W_x"].result == []
    [failure] = tests["rnn-vae.jax-scan", "d2 hidden / d W_x"].result
    assert "d2 hidden / d W_x" in failure.text.replace("\N{NO-BREAK SPACE}", " ")


def test_each_outcome_has_its_element(examples: dict[str, Report], tmp_path: Path) -> None:
    tests = by_name(examples["five_backends"], tmp_path)
    assert tests["rnn-vae.jax-scan", "d hidden / d W_x"].result == []

    [failure] = tests["rnn-vae.theano-scan", "d hidden / d W_mu"].result
    assert isinstance(failure, Failure)
    assert failure.type == "GC201,GC202"
    assert failure.text.startswith("error[GC202]: gradient is wrong because the backward pass")
    assert max(map(len, failure.text.splitlines())) <= 80

    [expected] = tests["rnn-vae.theano-scan", "d hidden / d W_sigma"].result
    assert isinstance(expected, Skipped)
    assert expected.message.startswith("expected: Theano has no gradient")

    [inconclusive] = tests["rnn-vae.unroll", "d obj / d W_z"].result
    assert isinstance(inconclusive, Skipped)
    assert inconclusive.message.startswith("inconclusive[GC401]")

    [stale] = tests["rnn-vae.findings", "GC801 an expected finding no longer occurs"].result
    assert isinstance(stale, Failure)


def test_what_did_not_run_is_an_error(examples: dict[str, Report], tmp_path: Path) -> None:
    [error] = by_name(examples["not_run"], tmp_path)["rnn-vae.theano-scan", "d hidden / d W_x"].result
    assert isinstance(error, Error)
    assert "gradcheck doctor theano --rebuild" in error.text


def test_broken_case_files_are_errors(examples: dict[str, Report], tmp_path: Path) -> None:
    tests = by_name(examples["problems"], tmp_path)
    assert all(isinstance(test.result[0], Error) for test in tests.values())
    assert tests["case files", "cases/y.yaml"].result[0].text == "cases/y.yaml: cannot be read: permission denied"


def test_an_unwritable_file_is_a_usage_error(examples: dict[str, Report], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        write_file(examples["passes"], tmp_path / "missing" / "report.xml")
