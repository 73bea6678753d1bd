"""The reference's error bound holds on functions whose derivatives are known, and is not idly wide."""

import numpy as np
import pytest

from gradcheck.numerics import reference

EPS = 2.0**-52
FUNCTIONS = {  # name: (f(t), f'(0)) with t the offset along the probe
    "exp": (np.exp, 1.0),
    "sine of 20 t": (lambda t: np.sin(20 * t + 0.3), 20 * np.cos(0.3)),
    "tanh": (lambda t: np.tanh(3 * t + 0.2), 3 / np.cosh(0.2) ** 2),
    "cubic": (lambda t: t**3 - 2 * t + 1, -2.0),
    "even": (lambda t: np.cos(t), 0.0),
    "near a singular point": (lambda t: np.sqrt(0.02 + t), 0.5 / np.sqrt(0.02)),
    "logarithm near zero": (lambda t: np.log(0.01 + t), 100.0),
    "large offset": (lambda t: 1e8 + np.exp(t), 1.0),
    "quintic with large high orders": (lambda t: t + 1e4 * t**5, 1.0),
    "steep logistic": (lambda t: 1 / (1 + np.exp(-50 * (t - 0.05))), 50 * 0.0701037165451),
    "linear": (lambda t: 7 * t - 3, 7.0),
}


def estimate(function, eps=EPS, rounded=lambda value: value):
    """The whole procedure on one function of one offset: noise, pilot, ladder. Returns (Estimate, values used)."""
    used = 0

    def values_at(offsets):
        nonlocal used
        used += len(offsets)
        with np.errstate(invalid="ignore"):
            return np.array([[rounded(float(function(t)))] for t in offsets])

    base = values_at([0.0])[0]
    offsets = reference.NOISE_OFFSETS * reference.noise_radius(eps)
    sigma = reference.noise_level(offsets, values_at(offsets), base, eps)
    pilot = reference.extrapolate(
        base, values_at([reference.PILOT_STEP * rung for rung in reference.LADDER]), reference.PILOT_STEP, sigma
    )
    step = reference.balanced_step(pilot)
    enough = np.array([1e-9 * abs(float(pilot.value[0]))])
    return reference.ladder(values_at, base, sigma, step, enough, np.array([True])), used


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1.0, 1e5, 1e12])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_true_error_is_inside_the_bound(name, scale):
    function, derivative = FUNCTIONS[name]
    found, _ = estimate(lambda t: scale * function(t))
    error = abs(found.value[0] - scale * derivative)
    assert error <= found.bound[0] + 1e-12 * abs(scale * derivative), (error, found)


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n not in ("large offset", "even")])
def test_bound_of_smooth_functions_is_tight(name):
    function, derivative = FUNCTIONS[name]
    found, used = estimate(function)
    assert found.bound[0] <= 1e-7 * abs(derivative)
    assert used <= 13 + 4 * reference.TRIES


def test_scaling_changes_no_relative_bound():
    bounds = [estimate(lambda t, s=s: s * np.sin(t + 0.4))[0].bound[0] / s for s in (2.0**-40, 1.0, 2.0**40)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-9)
    assert bounds[2] == pytest.approx(bounds[1], rel=1e-9)


def test_bound_holds_over_random_smooth_functions():
    """99.9 % of probes, over random sums of waves, are inside the bound; none was tuned to this seed."""
    generator = np.random.Generator(np.random.Philox(7))
    outside, refused, ratios = 0, 0, []
    for _ in range(2000):
        weights, rates, phases = generator.normal(size=4), generator.uniform(0.1, 6, 4), generator.uniform(0, 6, 4)
        found, _ = estimate(lambda t, w=weights, r=rates, p=phases: float(w @ np.sin(r * t + p)))
        truth = float(weights @ (rates * np.cos(phases)))
        error = abs(found.value[0] - truth)
        outside += error > found.bound[0]
        refused += found.bound[0] > 1e-6 * np.linalg.norm(weights * rates)
        ratios.append(found.bound[0] / max(error, 1e-300))
    assert outside <= 2
    assert refused <= 40
    assert np.median(ratios) <= 100


def test_noisy_function_has_a_bound_as_wide_as_its_noise():
    generator = np.random.Generator(np.random.Philox(3))
    found, _ = estimate(lambda t: np.sin(t) + 1e-6 * generator.normal())
    assert abs(found.value[0] - 1) <= found.bound[0]
    assert found.bound[0] > 1e-6


def test_float32_values_give_a_wide_but_honest_bound():
    found, _ = estimate(lambda t: np.float32(np.float32(100) + np.exp(np.float32(t))), eps=2.0**-23)
    assert abs(found.value[0] - 1) <= found.bound[0]


def test_kink_inside_the_stencil_is_not_believed():
    found, _ = estimate(lambda t: abs(t - 1e-9) + t)
    assert not (found.bound[0] < 0.1 and abs(found.value[0]) > 0.2), found


def test_constant_function_does_not_move():
    found, _ = estimate(lambda t: 3.0)
    assert not found.moved[0]
    assert found.value[0] == 0


def test_non_finite_values_give_an_infinite_bound():
    found, _ = estimate(lambda t: np.sqrt(t) if t >= 0 else np.nan)
    assert not np.isfinite(found.bound[0])


def test_noise_level_sees_rounding_noise():
    generator = np.random.Generator(np.random.Philox(5))
    noise = 1e-13 * generator.normal(size=(200, 8, 1))
    levels = [reference.noise_level(reference.NOISE_OFFSETS, 1 + n, np.array([1.0]), EPS)[0] for n in noise]
    assert 0.2e-13 < np.median(levels) < 2e-13


def test_a_jump_through_the_point_is_told_from_noise_and_slopes():
    """Values at points close together: two groups only where a jump goes through them."""
    offsets = reference.noise_offsets(EPS, False, 0.25)
    random = np.random.Generator(np.random.Philox(8))
    jump = np.where(np.asarray(offsets) > 0, 3.0, 1.0)
    columns = [jump, jump + 1e-12 * random.normal(size=len(offsets)), 5e6 * np.asarray(offsets),
               random.normal(size=len(offsets)), np.full(len(offsets), 2.0)]  # fmt: skip
    assert reference.in_two_groups(np.stack(columns, axis=1)).tolist() == [True, True, False, False, False]
