"""What a worker tells of the loops in a native model's graph, and the gradients with such loops made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradcheck.diagnosis.counterfactual import Agreement, held_against
from gradcheck.diagnosis.scene import Scene, line_blame, relative
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Blame


@dataclass(frozen=True)
class Loops:
    """See `explain_loops` of backends/README.md. All empty where the backend cannot tell."""

    backend: str
    truncated: list[dict[str, Any]] = field(default_factory=list)
    copies: list[dict[str, Any]] = field(default_factory=list)

    def held(self, scene: Scene, checks: Sequence[Evidence], **changes: bool) -> Agreement:
        """Which of these checks the gradients of the changed loops put right."""
        try:
            with scene.lab.session(scene.case, self.backend, scene.arrays) as session:
                gradients = session.with_loops(**changes)
        except BackendError as error:
            return Agreement([], f"the counterfactual could not be run: {error.message}")
        return held_against(scene, checks, gradients)


def loops_of(scene: Scene, backend: str) -> Loops:
    """Asked once per case and backend."""
    key = f"loops of {backend}"
    if key not in scene.notes:
        scene.notes[key] = Loops(backend)
        try:
            with scene.lab.session(scene.case, backend, scene.arrays) as session:
                if scene.case.native and session.can("explain_loops") and session.can("with_loops"):
                    told = session.explain_loops()
                    scene.notes[key] = Loops(backend, told["truncated"], told["copies"])
        except BackendError:
            pass
    found = scene.notes[key]
    assert isinstance(found, Loops)
    return found


def place(told: dict[str, Any]) -> str:
    return f"{Path(told['file']).name}:{told['line']}" if told["file"] else "a place that is not known"


def blame(told: dict[str, Any], op: str) -> Blame | None:
    """The line of the loop's call; None where that is not known."""
    if not told["file"]:
        return None
    return line_blame(told["file"], told["line"], op) or Blame(relative(told["file"]), told["line"], None, op, "")
