"""GC801: the case expects a finding that no longer occurs. Fails the run, so that a fixed bug does not stay excused."""

from __future__ import annotations

from collections.abc import Iterable

from gradcheck.catalog import suggest
from gradcheck.diagnosis.scene import Scene, line_blame, unique
from gradcheck.model import Case, Expectation, Finding, Severity, Verdict


def expectation_gone(scene: Scene) -> Iterable[Finding]:
    """One finding per `expect` entry that is about checks that ran and holds for none of them."""
    from gradcheck.diagnosis import matches, says

    checks = [e.check for r in (*scene.results, *scene.second) for e in r.checks]
    for entry in scene.case.expect:
        if unknown := strangers(scene.case, entry):
            yield Finding(
                "GC801",
                "an `expect` entry names what the model does not have",
                Severity.ERROR,
                (),
                (),
                (),
                because="; ".join(unknown),
                help="correct the entry under `expect`, or remove it",
                whose="the case",
                blame=line_blame(scene.case.path, entry.line) if entry.line else None,
            )
            continue
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


def strangers(case: Case, entry: Expectation) -> list[str]:
    """Names in an entry that a native model does not have; it tells its names only when it runs."""
    if not case.native or not case.inputs:
        return []
    known = {"parameter": [i.name for i in case.inputs], "objective": [o.name for o in case.objectives]}
    named = {"parameter": entry.parameters, "objective": entry.objectives}
    return [
        f"the model has no {kind} {name!r}{suggest(name, known[kind])}"
        for kind, names in named.items()
        for name in names
        if name not in known[kind]
    ]
