"""The JSON report: the schema of DESIGN section 8, version 1.0. Strict JSON, keys in a fixed order, ASCII only."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gradcheck.model import BackendReport, Blame, CaseReport, Change, Check, Finding, Planted, Report, Worst, Wrong
from gradcheck.reports._shared import counts, write_whole

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = "1.0"


def render(report: Report, console: Console, verbose: int = 0, quiet: bool = False) -> None:
    """The document is the same however verbose the run is."""
    write(report, console.file)


def write(report: Report, stream: IO[str]) -> None:
    stream.write(_dumped(report))


def write_file(report: Report, path: str | Path) -> None:
    """Raises UsageError if the file cannot be written; never leaves half of it."""
    write_whole(path, _dumped(report).encode("ascii"))


def document(report: Report) -> dict[str, Any]:
    """The report as plain dicts, lists, strings and finite numbers."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "gradcheck", "version": report.version},
        "started": report.started,
        "seconds": _number(report.seconds),
        "exit_code": report.exit_code,
        "command": report.command,
        "summary": counts(report),
        "backends": [_backend(backend) for backend in report.backends],
        "cases": [_case(case) for case in report.cases],
        "problems": [str(problem) for problem in report.problems],
        "warnings": list(report.warnings),
        "rerun": report.rerun or None,
    }


def _dumped(report: Report) -> str:
    return json.dumps(document(report), indent=2, allow_nan=False) + "\n"


def _number(value: float | None) -> float | str | None:
    """JSON has no words for what is not finite, so strings stand for it."""
    if value is None or math.isfinite(value):
        return None if value is None else float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _backend(backend: BackendReport) -> dict[str, Any]:
    return {
        "name": backend.name,
        "framework": backend.framework,
        "framework_version": backend.framework_version,
        "python_version": backend.python_version,
        "environment": backend.environment,
        "seconds": _number(backend.seconds),
        "forward_evaluations": int(backend.forward_evaluations),
    }


def _case(case: CaseReport) -> dict[str, Any]:
    return {
        "name": case.name,
        "path": case.path,
        "seed": int(case.seed),
        "checks": [_check(check) for check in case.checks],
        "findings": [_finding(finding) for finding in case.findings],
        "check_seconds": _number(case.check_seconds),
        "diagnosis_seconds": _number(case.diagnosis_seconds),
    } | ({"self_test": [_planted(planted) for planted in case.self_test]} if case.self_test else {})


def _planted(planted: Planted) -> dict[str, Any]:
    return {
        "backend": planted.backend,
        "kind": planted.kind,
        "planted": planted.planted,
        "seen": planted.seen,
        "missed": list(planted.missed),
    }


def _check(check: Check) -> dict[str, Any]:
    return {
        "backend": check.backend,
        "objective": check.objective,
        "parameter": check.parameter,
        "verdict": check.verdict.value,
        "codes": list(check.codes),
        "expected": bool(check.expected),
        "shape": [int(length) for length in check.shape],
        "dtype": check.dtype,
        "analytic_norm": _number(check.analytic_norm),
        "reference_norm": _number(check.reference_norm),
        "max_abs_error": _number(check.max_abs_error),
        "max_rel_error": _number(check.max_rel_error),
        "error_bound": _number(check.error_bound),
        "detection_limit": _number(check.detection_limit),
        "reference": check.reference,
        "forward_evaluations": int(check.forward_evaluations),
        "worst": _worst(check.worst) if check.worst else None,
        "wrong": _wrong(check.wrong) if check.wrong else None,
        "time_steps": [int(step) for step in check.time_steps] if check.time_steps else None,
        "reason": check.reason or None,
        "order": int(check.order),
        "forward_mode": _number(check.forward_mode),
    }


def _worst(worst: Worst) -> dict[str, Any]:
    return {
        "index": [int(i) for i in worst.index],
        "analytic": _number(worst.analytic),
        "reference": _number(worst.reference),
    }


def _wrong(wrong: Wrong) -> dict[str, Any]:
    return {
        "count": int(wrong.count),
        "exact": bool(wrong.exact),
        "sample": {"wrong": int(wrong.sample[0]), "size": int(wrong.sample[1])},
        "region": wrong.region or None,
        "size": int(wrong.size),
        "shared": wrong.shared or None,
        "entries": [_worst(entry) for entry in wrong.entries],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "title": finding.title,
        "severity": finding.severity.value,
        "backends": list(finding.backends),
        "objectives": list(finding.objectives),
        "parameters": list(finding.parameters),
        "because": finding.because or None,
        "proof": finding.proof or None,
        "help": finding.help or None,
        "note": finding.note or None,
        "whose": finding.whose or None,
        "expected": bool(finding.expected),
        "blame": _blame(finding.blame) if finding.blame else None,
        "numbers": [{"label": label, "text": text} for label, text in finding.numbers],
        "order": int(finding.order),
        "change": _change(finding.change) if finding.change else None,
    }


def _change(change: Change) -> dict[str, Any]:
    return {"file": change.file, "line": change.line, "diff": change.diff, "tried": change.tried}


def _blame(blame: Blame) -> dict[str, Any]:
    return {"file": blame.file, "line": blame.line, "column": blame.column, "op": blame.op, "text": blame.text}
