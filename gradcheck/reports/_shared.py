"""What all report formats need: counts, which finding explains which check, printable strings, files written whole."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeVar

from gradcheck.errors import UsageError
from gradcheck.model import CaseReport, Check, Finding, Report, Severity, Verdict

T = TypeVar("T")

EXIT_MEANING = {
    0: "everything is as expected",
    1: "there are findings that were not expected",
    2: "a usage or case-file error",
    3: "something could not be judged, and nothing is known to be wrong",
    4: "internal error",
    5: "no case was collected",
    130: "interrupted",
}


def outcome(check: Check) -> str:
    """Which count of the summary a check belongs to: exactly one, so that the counts add up to the checks."""
    if check.verdict is Verdict.PASS or check.dead:
        return "passed"
    if check.expected:
        return "expected"
    return "failed" if check.failing else check.verdict.value


def counts(report: Report) -> dict[str, int]:
    """The summary of DESIGN section 8, in its order."""
    outcomes = [outcome(check) for case in report.cases for check in case.checks]
    return {"cases": len(report.cases), "checks": len(outcomes)} | {
        name: outcomes.count(name) for name in ("passed", "failed", "expected", "inconclusive", "not_run")
    }


def derivative(order: int, objective: str) -> str:
    """The upper half of a check's label: "d hidden", and "d2 hidden" for one of second order."""
    return f"{'d' if order == 1 else f'd{order}'} {objective}"


def explains(finding: Finding, check: Check) -> bool:
    """Whether a finding is about a check. One that names no backend, objective or parameter is about all of them."""
    return (
        finding.code in check.codes
        and finding.order == check.order
        and finding.expected == (check.expected and check.verdict is not Verdict.PASS)
        and (not finding.backends or check.backend in finding.backends)
        and (not finding.objectives or check.objective in finding.objectives)
        and (not finding.parameters or check.parameter in finding.parameters)
    )


def expectation_reason(finding: Finding) -> str:
    """Why it is accepted: the case file's own words, kept as the number labelled "expected"; else what was seen."""
    return dict(finding.numbers).get("expected") or finding.because


def unexpected(report: Report) -> Iterator[tuple[CaseReport, Finding]]:
    return ((case, finding) for case in report.cases for finding in case.findings if not finding.expected)


def fails(finding: Finding) -> bool:
    return finding.severity is Severity.ERROR and not finding.expected


ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
UNPRINTABLE = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufffe\uffff]"
)
ASCII = str.maketrans(
    {"·": "|", "±": "+-", "×": "x", "…": "...", "–": "-", "—": "--", "−": "-", "\xa0": " ", "\ufffd": "?"}
    | {"‘": "'", "’": "'", "“": '"', "”": '"', "→": "->", "≤": "<=", "≥": ">=", "≈": "~", "∂": "d", "²": "^2"}
)


def printable(report: Report, utf8: bool = True) -> Report:
    """The report with every string safe to print: a framework's words may hold colours or control characters."""
    return _with_strings(report, _clean if utf8 else lambda text: _ascii(_clean(text)))


def speaks_utf8(stream: IO[str]) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf8")


def _clean(text: str) -> str:
    text = ANSI.sub("", text).replace("\r\n", "\n").expandtabs(4)
    return UNPRINTABLE.sub("\ufffd", text)


def _ascii(text: str) -> str:
    return text.translate(ASCII).encode("ascii", "backslashreplace").decode("ascii")


def _with_strings(value: T, change: Callable[[str], str]) -> T:
    """A copy with every str changed, all the way down; enums and numbers are left as they are."""
    result: Any = value
    if type(result) is str:
        result = change(result)
    elif isinstance(value, tuple):
        result = tuple(_with_strings(item, change) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        result = replace(value, **{f.name: _with_strings(getattr(value, f.name), change) for f in fields(value)})
    return result  # type: ignore[no-any-return]  # each branch keeps the type


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file that is whole or absent: through a temporary neighbour that takes its place in one move.

    Raises UsageError if that cannot be. Pipes and devices such as /dev/null are written to, not replaced.
    """
    try:
        target = Path(path).resolve()
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(content)
            return
        beside = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
        try:
            with beside.open("xb") as stream:
                stream.write(content)
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, ValueError, RuntimeError) as problem:
        raise UsageError(
            message=f"cannot write the report to {path}",
            context=getattr(problem, "strerror", None) or str(problem),
            note="the checks themselves ran to the end",
            hint="name a file in a folder that exists and that you may write to",
        ) from problem
