"""GC801: the case expects a finding that no longer occurs. Fails the run, so that a fixed bug does not stay excused."""

from __future__ import annotations

from collections.abc import Iterable

from gradcheck.diagnosis.scene import Scene, line_blame, unique
from gradcheck.model import Finding, Severity, Verdict


def expectation_gone(scene: Scene) -> Iterable[Finding]:
    """One finding per `expect` entry that is about checks that ran and holds for none of them."""
    from gradcheck.diagnosis import matches, says

    checks = [e.check for r in (*scene.results, *scene.second) for e in r.checks]
    for entry in scene.case.expect:
        about = [c for c in checks if matches(entry, c) and c.verdict is not Verdict.NOT_RUN]
        if not about or any(says(entry, c) for c in about):
            continue
        yield Finding(
            "GC801",
            f"expected {' or '.join(entry.codes)} did not occur",
            Severity.ERROR,
            unique(c.backend for c in about),
            unique(c.objective for c in about),
            unique(c.parameter for c in about),
            because=f"the case expects it ({entry.reason}), and none of these {len(about)} checks has it: "
            + ", ".join(sorted({str(c.verdict) for c in about})),
            help="remove the entry from `expect`, or correct what it names",
            whose="the case",
            blame=line_blame(scene.case.path, entry.line) if entry.line else None,
        )
