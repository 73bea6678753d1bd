"""The decision between pass, mismatch and inconclusive."""

import pytest

from gradcheck.model import Verdict
from gradcheck.numerics.compare import compare


@pytest.mark.parametrize(
    ("analytic", "reference", "bound", "tolerance", "scale", "verdict"),
    [
        (1.0, 1.0, 1e-9, 1e-8, 1.0, Verdict.PASS),
        (1.0, 1.1, 1e-9, 1e-8, 1.0, Verdict.MISMATCH),
        (1.0, 1.1, 0.2, 1e-8, 1.0, Verdict.INCONCLUSIVE),  # cannot tell: an error of 20 % would hide
        (0.0, 0.5, 1e-9, 0.0, 0.5, Verdict.MISMATCH),  # a zero gradient of an objective that moves
        (0.0, 0.0, 0.0, 0.0, 0.0, Verdict.PASS),
        (1e-5, 1.1e-5, 1e-14, 1e-13, 1e-5, Verdict.MISMATCH),
        (1.0, 1.0, float("inf"), 1e-8, 1.0, Verdict.INCONCLUSIVE),
        (1.0, float("nan"), float("inf"), 1e-8, 1.0, Verdict.INCONCLUSIVE),
    ],
)
def test_verdict(analytic, reference, bound, tolerance, scale, verdict):
    assert compare(analytic, reference, bound, tolerance, scale).verdict is verdict


@pytest.mark.parametrize("factor", [1e-5, 1.0, 1e5])
@pytest.mark.parametrize("error", [1e-7, 1e-9])
def test_scaling_the_objective_changes_no_verdict(factor, error):
    plain = compare(1.0, 1.0 + error, 1e-10, 1e-8, 1.0)
    scaled = compare(factor, factor * (1.0 + error), factor * 1e-10, factor * 1e-8, factor)
    assert plain.verdict is scaled.verdict


def test_an_error_above_the_detection_limit_is_seen_whatever_the_reference_error():
    passed = compare(1.0, 1.0, 1e-9, 1e-8, 1.0)
    limit = passed.detection_limit(tensor_scale=2.0)
    smallest_entry = 0.5 * 2.0  # of the direction, for a tensor of rms 2
    for reference_error in (-1e-9, 0.0, 1e-9):
        seen = compare(1.0 + 1.001 * limit * smallest_entry, 1.0 + reference_error, 1e-9, 1e-8, 1.0)
        assert seen.verdict is Verdict.MISMATCH
