"""GC901 to GC905: a backend could not do its work on this case."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gradcheck.diagnosis.scene import Claim, Scene, finding, line_blame, unique
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Finding

WHOSE = {
    "GC901": "the environment",
    "GC902": "the step or the framework: a process does not die by itself",
    "GC903": "the step, or too short a time limit",
    "GC904": "the case, or too low a memory limit",
    "GC905": "the step or the case",
}
TITLES = {
    "GC901": "{} could not be started",
    "GC902": "the process of {} died",
    "GC903": "{} ran out of time",
    "GC904": "{} ran out of memory",
    "GC905": "the step could not be run on {}",
}


def could_not_run(scene: Scene) -> Iterable[Claim]:
    """One claim per distinct error, whatever number of backends it stopped."""
    groups: dict[tuple[str, str, str], list[Evidence]] = {}
    errors: dict[tuple[str, str, str], BackendError] = {}
    for result in scene.results:
        if result.error is not None:
            key = (
                result.error.code,
                result.error.message,
                result.error.context if result.error.code == "GC905" else "",
            )
            groups.setdefault(key, []).extend(result.checks)
            errors.setdefault(key, result.error)
    for key, checks in groups.items():
        yield Claim(key[0], checks, describer(errors[key]))


def describer(error: BackendError) -> Callable[[list[Evidence]], Finding]:
    """What makes the finding of one error."""
    path, _, line = error.context.rpartition(":")
    blame = line_blame(path, int(line)) if error.code == "GC905" and line.isdigit() else None

    def describe(checks: list[Evidence]) -> Finding:
        quoted = error.context if blame is None else ""
        return finding(
            error.code,
            checks,
            TITLES[error.code].format(", ".join(unique(e.check.backend for e in checks))),
            because=error.message + (f"\n{quoted}" if quoted else ""),
            help=error.hint,
            note=error.note,
            whose=WHOSE[error.code],
            blame=blame,
        )

    return describe
