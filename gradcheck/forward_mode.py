"""Forward mode as a second opinion on gradients that did not pass: along the judged probe, against reverse mode and differences.

Where reverse mode has nothing to offer, or what is not finite, against the differences alone.

It is compiled for itself, so it is asked only about what is wrong or could not be judged, once all else is measured. What it says
stands beside the verdict and never changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Verdict

if TYPE_CHECKING:
    from gradcheck.examine import Examination


ASKED = (Verdict.MISMATCH, Verdict.INCONCLUSIVE, Verdict.NULL, Verdict.NONFINITE, Verdict.DISCONNECTED)


def second_opinions(exam: Examination, checks: Sequence[Evidence]) -> None:
    """Note with each check of one backend that is wrong or inconclusive what forward mode gives along its probe, in place."""
    asked = [e for e in checks if e.check.verdict in ASKED and can_be_held(e)]
    if not asked:
        return
    if exam.complex:  # which is forward mode, and is the reference already
        for evidence in asked:
            if evidence.comparison is not None:
                tell(evidence, evidence.comparison.reference)
        return
    try:
        for name in dict.fromkeys(e.check.parameter for e in asked):
            point = [(name, exam.scales[name], exam.move(name, "probe"))]
            values, none = exam.session.tangents([point])
            for evidence in asked:
                if evidence.check.parameter == name and values is not None:
                    value = float(values[0, evidence.objective_index])
                    tell(evidence, value)
                    evidence.notes["forward_mode"] = (value, words(exam, evidence, value))
                elif evidence.check.parameter == name and none:
                    evidence.notes["forward_mode"] = (None, none)
    except BackendError:  # a second opinion that cannot be had
        return


def can_be_held(evidence: Evidence) -> bool:
    """Whether there is a probe, with differences along it that can tell something, to hold forward mode against."""
    if evidence.check.verdict is Verdict.INCONCLUSIVE and evidence.comparison is None:
        return False
    return evidence.salt == "probe" and evidence.estimate is not None and not evidence.check.dead


def tell(evidence: Evidence, value: float) -> None:
    if (relative := apart(evidence, value)) is not None:
        evidence.check = replace(evidence.check, forward_mode=relative)


def apart(evidence: Evidence, value: float) -> float | None:
    """How far forward and reverse mode are apart along the probe, relative to the size that errors are relative to."""
    comparison = evidence.comparison
    if comparison is None:
        return None
    scale = max(comparison.scale, abs(value))
    return abs(value - comparison.analytic) / scale if np.isfinite(value) and 0 < scale < np.inf else None


def words(exam: Examination, evidence: Evidence, value: float) -> str:
    """What is observed: which of the two others forward mode agrees with, and how closely."""
    held, relative = evidence.comparison, apart(evidence, value)
    if held is None or evidence.gradient.array is None:
        return words_alone(evidence, value)
    if relative is None:
        return "0 exactly in reverse mode, too" if np.isfinite(value) else "not finite"
    i, name = evidence.objective_index, evidence.check.parameter
    move = exam.move(name, "probe")
    as_reverse = abs(value - held.analytic) <= exam.tolerance(i, name, move, exam.along(i, name, move)[1])
    if evidence.check.verdict is Verdict.INCONCLUSIVE:
        return (
            f"{'agrees' if as_reverse else 'disagrees'} with reverse mode, to {relative:.0e}; differences cannot tell"
        )
    off = abs(value - held.reference) / max(held.scale, abs(value))
    as_reference = abs(value - held.reference) <= held.allowed
    if as_reference and as_reverse:
        return f"agrees with the differences to {off:.0e}, and with the reverse pass to {relative:.0e}"
    if as_reference:
        return f"agrees with the differences to {off:.0e}, not with the reverse pass"
    if as_reverse:
        return f"agrees with the reverse pass to {relative:.0e}, not with the differences"
    return f"agrees neither with the differences ({off:.0e} off) nor with the reverse pass ({relative:.0e} off)"


def words_alone(evidence: Evidence, value: float) -> str:
    """The same where reverse mode has nothing to compare with."""
    assert evidence.estimate is not None
    right, bound = (
        float(part[evidence.objective_index]) for part in (evidence.estimate.value, evidence.estimate.bound)
    )
    if not np.isfinite(value) or not np.isfinite(bound):
        return "not finite" if not np.isfinite(value) else "the differences cannot tell"
    off = abs(value - right)
    relative = off / (max(abs(value), abs(right)) or 1.0)
    agrees = off <= bound + 1e-6 * max(abs(value), abs(right))
    return f"agrees with the differences, to {relative:.0e}" if agrees else f"{relative:.0e} off the differences"
