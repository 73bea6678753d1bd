"""GitHub annotations: one line each, escaped as the runner unescapes them."""

from __future__ import annotations

import io
import re

from syrupy.assertion import SnapshotAssertion

from gradcheck.model import Report
from gradcheck.reports.github import write
from gradcheck.reports.text import summary

COMMAND = re.compile(r"::(error|warning|notice) ([^:]*)::([^\r\n]*)")


def annotations(report: Report) -> list[tuple[str, dict[str, str], str]]:
    stream = io.StringIO()
    write(report, stream)
    *lines, last = stream.getvalue().splitlines()
    assert last == summary(report)
    parsed = []
    for line in lines:
        command = COMMAND.fullmatch(line)
        assert command, line
        level, properties, message = command.groups()
        pairs = (part.split("=", 1) for part in properties.split(","))
        parsed.append((level, {key: unescaped(value) for key, value in pairs}, unescaped(message)))
    return parsed


def unescaped(text: str) -> str:
    for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, char)
    return text


def test_golden(examples: dict[str, Report], snapshot: SnapshotAssertion) -> None:
    stream = io.StringIO()
    write(examples["five_backends"], stream)
    assert stream.getvalue() == snapshot


def test_one_annotation_per_unexpected_finding_problem_and_warning(example: Report) -> None:
    findings = [finding for case in example.cases for finding in case.findings if not finding.expected]
    assert len(annotations(example)) == len(findings) + len(example.problems) + len(example.warnings)


def test_levels_and_places(examples: dict[str, Report]) -> None:
    by_code = {a[1]["title"].split("]")[0].split("[")[-1]: a for a in annotations(examples["five_backends"])}
    assert {code: by_code[code][0] for code in ("GC202", "GC401", "GC701")} == {
        "GC202": "error", "GC401": "warning", "GC701": "notice",
    }  # fmt: skip
    _, where, message = by_code["GC202"]
    assert (where["file"], where["line"]) == ("rnn_vae.py", "31")
    assert "col" not in where
    assert "help     draw outside the loop:" in message
    assert by_code["GC801"][1]["col"] == "5"
    assert by_code["GC401"][1]["file"] == "cases/rnn_vae.yaml"
    assert "line" not in by_code["GC401"][1]


def test_special_characters_are_escaped(examples: dict[str, Report]) -> None:
    [(_, where, _)] = annotations(examples["odd_numbers"])
    assert where["title"] == "error[GC801]: σ is ± 0 × ∞ [bold]not markup[/bold] red: 100%, really"


def test_broken_case_files_are_annotated(examples: dict[str, Report]) -> None:
    level, where, message = annotations(examples["problems"])[0]
    assert (level, where["file"], where["line"], where["col"]) == ("error", "cases/x.yaml", "14", "3")
    assert message == "unknown key 'paramters', did you mean 'parameters'?"
