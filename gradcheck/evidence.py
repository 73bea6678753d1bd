"""What was measured: per check (Evidence) and per backend (BackendEvidence). Filled by examine, read by judge and diagnosis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck.errors import BackendError
from gradcheck.model import Case, Check, Gradient, Planted
from gradcheck.numerics.compare import Comparison
from gradcheck.numerics.fingerprint import Fingerprint
from gradcheck.numerics.reference import Estimate


@dataclass
class Evidence:
    """What was measured for one check.

    unrolled: the same framework's unrolled gradient (same draws), for scans. estimate: along the judged probe. scale: the
    input's unit of steps, by which the probe direction is multiplied. fingerprint: what the wrong gradient equals, if
    that was recognised. salt: names the judged probe's direction.
    """

    check: Check
    gradient: Gradient
    comparison: Comparison | None = None
    estimate: Estimate | None = None
    objective_index: int = 0
    scale: float = 1.0
    unrolled: Gradient | None = None
    fingerprint: Fingerprint | None = None
    salt: str = "probe"
    unrolled_passes: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class BackendEvidence:
    """What was measured on one backend. values, magnitudes: float64[objectives] at the base point, None if it did not run.

    case: as it was examined; a native one is complete only then. coarsest: the lowest float type that anything in it is computed
    in, "" where that is not known.
    second: the same of second order, if that was asked for and some gradient passed.
    """

    backend: str
    rollout: str
    checks: list[Evidence]
    values: NDArray[np.float64] | None = None
    magnitudes: NDArray[np.float64] | None = None
    error: BackendError | None = None
    evaluations: int = 0
    seconds: float = 0.0
    self_test: tuple[Planted, ...] = ()
    case: Case | None = None
    coarsest: str = ""
    second: BackendEvidence | None = None
