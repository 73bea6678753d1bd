"""Which time steps' contributions to a wrong gradient are wrong.

The parameter is moved at single steps: W_t = W + s_t v, with one scalar s_t a step. One reverse pass gives the derivative by
every s_t, and each is held against differences of its own. Where the missing ones are a prefix, as under truncation, only
the boundary is looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradcheck._backends._worker import directions
from gradcheck.diagnosis.scene import Scene
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.examine import EPS, probe_key
from gradcheck.model import TIME_DIRECTION, TIME_OFFSET, Case, Init, Input, Objective, Role
from gradcheck.numerics import reference
from gradcheck.session import Arrays, Session

EACH = 64  # steps that are looked at one by one; longer rollouts are looked at in as many even blocks
CELLS = {"right": ".", "wrong": "x", "missing": "0", "no contribution": "-", "not judged": "?"}


@dataclass(frozen=True)
class Timeline:
    """cells: what is known of each step (a key of CELLS); first, last: the wrong or missing ones' range, inclusive."""

    cells: tuple[str, ...]
    first: int
    last: int

    def line(self) -> str:
        """One character a step, in groups of ten."""
        marks = "".join(CELLS[c] for c in self.cells)
        return " ".join(marks[k : k + 10] for k in range(0, len(marks), 10))

    def legend(self) -> str:
        return ", ".join(f"{mark} {word}" for word, mark in CELLS.items() if word in self.cells)


def timeline(scene: Scene, evidence: Evidence) -> Timeline | None:
    """Look at every step of one wrong gradient by a parameter; None if that cannot be done or shows nothing."""
    name, case = evidence.check.parameter, scene.case
    if case.input(name).role not in (Role.PARAMETER, Role.CONSTANT) or case.steps < 2 or case.dtype != "float64":
        return None
    objective = next(o for o in case.objectives if o.name == evidence.check.objective)
    probed, arrays = timed(case, objective, name, scene.arrays, evidence.scale)
    try:
        with scene.lab.session(probed, evidence.check.backend, arrays) as session:
            gradient = session.gradients()[objective.name, TIME_OFFSET].array
            if gradient is None or not np.isfinite(gradient).all():
                return None
            cells = judged(session, np.asarray(gradient, dtype=np.float64))
    except BackendError:
        return None
    bad = [t for t, cell in enumerate(cells) if cell in ("wrong", "missing")]
    return Timeline(tuple(cells), bad[0], bad[-1]) if bad else None


def timed(case: Case, objective: Objective, name: str, arrays: Arrays, scale: float) -> tuple[Case, Arrays]:
    """The case with the parameter moved by s_t v at every step, differentiated by s alone."""
    parameter = arrays[name]
    direction = directions.expand(probe_key(case.seed, "probe", name), 0, parameter.size).reshape(parameter.shape)
    extra = (
        Input(TIME_OFFSET, Role.SEQUENCE, (), case.dtype, Init("zeros")),
        Input(TIME_DIRECTION, Role.CONSTANT, parameter.shape, case.dtype, Init("zeros")),
    )
    probed = replace(
        case,
        inputs=(*case.inputs, *extra),
        objectives=(replace(objective, wrt=(TIME_OFFSET,)),),
        time_probe=name,
    )
    moved = {TIME_OFFSET: np.zeros(case.steps, case.dtype), TIME_DIRECTION: (scale * direction).astype(case.dtype)}
    return probed, {**arrays, **moved}


def judged(session: Session, gradient: NDArray[np.float64]) -> list[str]:
    """One word a step, from differences along single steps (or blocks of them, in a long rollout)."""
    steps = gradient.size
    groups = np.array_split(np.arange(steps), min(steps, EACH))
    eps = EPS["float64"]
    offsets = reference.NOISE_OFFSETS * reference.noise_radius(eps)

    def along(group: Iterable[int], t: float) -> list[tuple[str, float, dict[str, int]]]:
        return [(TIME_OFFSET, t, {"entry": int(k)}) for k in group]

    everywhere = range(steps)
    values, _ = session.values([[], *(along(everywhere, t) for t in offsets)])
    base = values[0]
    sigma = reference.noise_level(offsets, values[1:], base, eps)
    pilot_values, _ = session.values([along(everywhere, reference.PILOT_STEP * rung) for rung in reference.LADDER])
    step = reference.balanced_step(reference.extrapolate(base, pilot_values, reference.PILOT_STEP, sigma))
    largest = float(np.abs(gradient).max())
    cells = ["not judged"] * steps
    for group in groups:

        def values_at(moves: Sequence[float], group: NDArray[np.int64] = group) -> NDArray[np.float64]:
            return session.values([along(group, t) for t in moves])[0]

        enough = np.array([1e-6 * max(largest, 1e-300)])
        found = reference.ladder(values_at, base, sigma, step, enough, np.array([True]))
        word = verdict(float(gradient[group].sum()), float(found.value[0]), float(found.bound[0]), largest)
        for t in group:
            cells[t] = word
    return cells


def verdict(analytic: float, value: float, bound: float, largest: float) -> str:
    allowed = bound + 1e-8 * max(abs(analytic), 1e-6 * largest)
    if not np.isfinite(bound):
        return "not judged"
    if abs(analytic - value) <= allowed:
        return "no contribution" if analytic == 0 and abs(value) <= allowed else "right"
    return "missing" if analytic == 0 else "wrong"
