"""Forward mode as a second opinion on gradients that did not pass: along the judged probe, against reverse mode and differences.

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


def second_opinions(exam: Examination, checks: Sequence[Evidence]) -> None:
    """Note with each check of one backend that is wrong or inconclusive what forward mode gives along its probe, in place."""
    asked = [e for e in checks if e.check.verdict in (Verdict.MISMATCH, Verdict.INCONCLUSIVE) and can_be_held(e)]
    null = [e for e in checks if e.check.verdict is Verdict.NULL and e.estimate is not None and not exam.complex]
    in_place_of_reverse_mode(exam, null)
    if not asked:
        return
    if exam.complex:  # which is forward mode, and is the reference already
        for evidence in asked:
            assert evidence.comparison is not None
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


def in_place_of_reverse_mode(exam: Examination, checks: Sequence[Evidence]) -> None:
    """Note with each check that has no gradient what forward mode gives, where the differences confirm it."""
    try:
        for name in dict.fromkeys(e.check.parameter for e in checks):
            values, _ = exam.session.tangents([[(name, exam.scales[name], exam.move(name, "probe"))]])
            for evidence in checks if values is not None else ():
                i, held = evidence.objective_index, evidence.estimate
                assert held is not None
                assert values is not None
                value, reference = float(values[0, i]), float(held.value[i])
                off = abs(value - reference)
                if evidence.check.parameter == name and reference and off <= held.bound[i] + exam.rtol * abs(reference):
                    words = f"agrees with the differences to {off / abs(reference):.0e}"
                    evidence.notes["forward_mode"] = (value, words)
    except BackendError:  # a second opinion that cannot be had
        return


def can_be_held(evidence: Evidence) -> bool:
    """Whether there are a gradient and a probe to hold forward mode against."""
    array, probed = evidence.gradient.array, evidence.salt == "probe" and evidence.comparison is not None
    return probed and array is not None and bool(np.isfinite(array).all())


def tell(evidence: Evidence, value: float) -> None:
    if (relative := apart(evidence, value)) is not None:
        evidence.check = replace(evidence.check, forward_mode=relative)


def apart(evidence: Evidence, value: float) -> float | None:
    """How far forward and reverse mode are apart along the probe, relative to the size that errors are relative to."""
    comparison = evidence.comparison
    assert comparison is not None
    scale = max(comparison.scale, abs(value))
    return abs(value - comparison.analytic) / scale if np.isfinite(value) and 0 < scale < np.inf else None


def words(exam: Examination, evidence: Evidence, value: float) -> str:
    """What is observed: which of the two others forward mode agrees with, and how closely."""
    held, relative = evidence.comparison, apart(evidence, value)
    assert held is not None
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
