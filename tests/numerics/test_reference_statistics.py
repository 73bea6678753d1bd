"""The reference's promise, on a moderate sample of what benchmarks/reference.py measures: bounds hold, and are not idly wide."""

import numpy as np
import pytest

PROBES = 100


@pytest.fixture(scope="module")
def tallies(bench):
    free = {
        name: bench.measured(f, PROBES, 1000 + k) for k, (name, f) in enumerate({**bench.SMOOTH, **bench.HARD}.items())
    }
    held = {
        f"{n}, on a bound": bench.measured(f, PROBES, 2000 + k, True) for k, (n, f) in enumerate(bench.SMOOTH.items())
    }
    return {**free, **held}


def test_true_error_is_inside_the_bound_in_999_of_1000(tallies):
    judged = sum(t.probes - t.refused for t in tallies.values())
    assert judged > 0.98 * len(tallies) * PROBES
    assert sum(t.inside for t in tallies.values()) >= 0.999 * judged


def test_the_median_bound_is_below_100_errors_in_every_family(tallies):
    assert max(float(np.median(t.ratios)) for t in tallies.values()) <= 100


def test_at_most_2_percent_of_smooth_probes_are_refused(bench, tallies):
    smooth = [tally for name, tally in tallies.items() if name.partition(", on a bound")[0] in bench.SMOOTH]
    assert sum(t.refused for t in smooth) <= 0.02 * sum(t.probes for t in smooth)


def test_no_family_costs_more_than_the_budget(tallies):
    """Two parameters, one objective: 4 each and 16, and no more than 30 % above."""
    for name, tally in tallies.items():
        assert tally.values <= 1.05 * (4 + 16 / 2) * tally.probes, name


def test_correct_code_at_a_kink_is_never_called_wrong(bench):
    """A sample of the 20 000 of `benchmarks/reference.py --kinks`; what can be judged is judged, and a kink is named."""
    counts = bench.at_kinks(600, 4)
    assert set(counts) == {"pass", "inconclusive GC402", "inconclusive GC404"}
    assert counts["pass"] > 150
    assert counts["inconclusive GC402"] > 3 * counts["inconclusive GC404"]
