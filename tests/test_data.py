"""Arrays from seeds: golden bytes, the right distributions, and independence of the inputs from each other."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from gradcheck import data
from gradcheck.model import Case, Init, Input, Placement, Role


def an_input(
    name: str,
    kind: str,
    role: Role = Role.PARAMETER,
    shape: tuple[int, ...] = (7, 11),
    dtype: str = "float64",
    placement: Placement | None = None,
    **init: Any,
) -> Input:
    return Input(name, role, shape, dtype, Init(kind, **init), placement)


def a_case(*inputs: Input, steps: int = 3, seed: int = 17) -> Case:
    return Case("golden", Path("g.yaml"), Path("/s.py"), "f", steps, seed, "float64", inputs, (), None, None, 0.0)


def one(target: Input, **case: Any) -> np.ndarray:
    return data.arrays(a_case(target, **case))[target.name]


INPUTS = (
    an_input("zeros", "zeros"),
    an_input("ones", "ones"),
    an_input("normal", "normal", a=1.0),
    an_input("scaled", "normal", a=0.1),
    an_input("normal_float32", "normal", a=1.0, dtype="float32"),
    an_input("uniform", "uniform"),
    an_input("limits", "uniform", a=-2.0, b=3.0),
    an_input("uniform_float32", "uniform", dtype="float32"),
    an_input("glorot", "glorot"),
    an_input("glorot_vector", "glorot", shape=(5,)),
    an_input("glorot_scalar", "glorot", shape=()),
    an_input("integers", "integers", a=-3, b=9, dtype="int64"),
    an_input("flags", "integers", a=0, b=2, dtype="bool"),
    an_input("wide", "integers", a=-(2**63), b=2**63 - 1, dtype="int64"),
    an_input("value", "value", shape=(2,), value=[0.1, -3]),
    an_input("filled", "value", value=0.1),
    an_input("sequence", "normal", Role.SEQUENCE, a=1.0),
    an_input("noise", "normal", Role.NOISE, a=1.0, placement=Placement.SEQUENCE),
    an_input("shared", "uniform", Role.NOISE, placement=Placement.NON_SEQUENCE),
    an_input("big", "normal", shape=(200000,), a=1.0),
)
# the first 16 digits of sha256 of the little-endian bytes; the same under numpy 1.23.5 and 2.4.6
GOLDEN = {
    "zeros": "f9d54bbe3ccaf085",
    "ones": "8495b6259e321e15",
    "normal": "ddc395b4e13321fb",
    "scaled": "38e15868fba41a43",
    "normal_float32": "790d97328fea8027",
    "uniform": "4fe26cc5182e38a3",
    "limits": "62fe747a75c45ba4",
    "uniform_float32": "4173908fe573a888",
    "glorot": "52a0403e7b568b37",
    "glorot_vector": "b1b75af897cd855c",
    "glorot_scalar": "2c03eda048ee0d67",
    "integers": "524b00803276cee3",
    "flags": "e67cb8fa58214964",
    "wide": "fa3999276a2de7ef",
    "value": "63b73f2c4b07ec7c",
    "filled": "45a986fb81d553a6",
    "sequence": "0b72abf75d0df4c2",
    "noise": "4ce7e7f85bae74f8",
    "shared": "3f6cf3e26cf19a67",
    "big": "9a1990d806083e1c",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_bytes_never_change(name: str) -> None:
    array = data.arrays(a_case(*INPUTS))[name]
    little = array.astype(array.dtype.newbyteorder("<"))
    assert hashlib.sha256(little.tobytes()).hexdigest()[:16] == GOLDEN[name]


def test_every_input_has_golden_bytes() -> None:
    assert set(GOLDEN) == {i.name for i in INPUTS}


def test_shapes_and_dtypes() -> None:
    arrays = data.arrays(a_case(*INPUTS, an_input("eps", "normal", Role.NOISE, placement=Placement.IN_STEP, a=1.0)))
    assert "eps" not in arrays
    for target in INPUTS:
        time = (3,) if target.role is Role.SEQUENCE or target.placement is Placement.SEQUENCE else ()
        array = arrays[target.name]
        assert (array.shape, array.dtype) == ((*time, *target.shape), np.dtype(target.dtype))
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_an_input_does_not_change_the_others() -> None:
    alone = {i.name: one(i) for i in INPUTS}
    for name, array in data.arrays(a_case(*reversed(INPUTS))).items():
        np.testing.assert_array_equal(array, alone[name])


def test_seed_role_and_name_each_give_other_values() -> None:
    base = an_input("a", "normal", a=1.0)
    others = [one(base, seed=18), one(replace(base, name="b")), one(replace(base, role=Role.CARRY))]
    for other in others:
        assert not np.any(other == one(base))


def test_more_steps_keep_the_earlier_ones() -> None:
    x = an_input("x", "normal", Role.SEQUENCE, a=1.0)
    np.testing.assert_array_equal(one(x, steps=9)[:3], one(x, steps=3))


def test_float32_is_rounded_float64() -> None:
    x = an_input("x", "normal", a=1.0)
    np.testing.assert_array_equal(one(replace(x, dtype="float32")), one(x).astype(np.float32))


def test_derived_key() -> None:
    assert data.derived_key(0, "parameter", "W") == 0x53A0F07AA0E255EFA63037614D19FF79
    assert data.derived_key("ab", "c") != data.derived_key("a", "bc")
    assert 0 <= data.derived_key() < 2**128


def test_normals_are_the_inverse_distribution_function() -> None:
    raw = data.words(data.derived_key("normals"), 20_000)
    p = ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    tails = 2.0 ** -np.arange(1.0, 54.0)
    for points, drawn in ((p, data.normals(raw)), (tails, data.inverse_normal(tails))):
        expected = [NormalDist().inv_cdf(x) for x in points]
        np.testing.assert_allclose(drawn, expected, rtol=2e-15, atol=1e-14)
    np.testing.assert_array_equal(data.inverse_normal(1.0 - tails[1:]), -data.inverse_normal(tails[1:]))


def test_extreme_words_stay_finite() -> None:
    raw = np.array([0, 2**64 - 1], dtype=np.uint64)
    low, high = data.normals(raw)
    assert low == -high
    assert 8.1 < high < 8.3
    np.testing.assert_array_equal(data.uniforms(raw), [0.0, 1.0 - 2.0**-53])


def test_log() -> None:
    x = np.concatenate(
        [2.0 ** np.arange(-1022.0, 1023.0), np.linspace(1e-3, 10.0, 5001), 1.0 + np.linspace(0, 1e-6, 99)]
    )
    np.testing.assert_allclose(data.log(x), [math.log(v) for v in x], rtol=1e-15, atol=0.0)


def kolmogorov_smirnov(sample: np.ndarray, cdf: Any) -> float:
    """sqrt(n) times the largest distance between the sample's distribution function and cdf."""
    probabilities = np.array([cdf(x) for x in np.sort(sample.ravel())])
    ranks = np.arange(sample.size + 1.0) / sample.size
    distance = max(np.max(ranks[1:] - probabilities), np.max(probabilities - ranks[:-1]))
    return float(distance * math.sqrt(sample.size))


@pytest.mark.parametrize("seed", range(3))
def test_distributions(seed: int) -> None:
    normal = one(an_input("n", "normal", shape=(20_000,), a=0.5), seed=seed)
    uniform = one(an_input("u", "uniform", shape=(20_000,), a=-1.0, b=3.0), seed=seed)
    assert kolmogorov_smirnov(normal, NormalDist(0.0, 0.5).cdf) < 1.95  # 1 in 1000
    assert kolmogorov_smirnov(uniform, lambda x: (x + 1.0) / 4.0) < 1.95
    assert abs(normal.mean()) < 4 * 0.5 / math.sqrt(normal.size)
    assert abs(normal.std() / 0.5 - 1.0) < 4 / math.sqrt(2 * normal.size)
    assert abs(np.corrcoef(normal, uniform)[0, 1]) < 4 / math.sqrt(normal.size)
    counts = np.bincount(one(an_input("i", "integers", shape=(60_000,), a=0, b=6, dtype="int64"), seed=seed))
    assert counts.shape == (6,)
    assert np.sum((counts - 1e4) ** 2 / 1e4) < 20.5  # chi squared, 5 degrees of freedom, 1 in 1000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_never_reaches_its_upper_limit(dtype: str) -> None:
    raw = np.array([0, 2**64 - 1], dtype=np.uint64)
    low, high = data._drawn(Init("uniform", a=-1.0, b=1.0), (2,), raw, np.dtype(dtype))
    assert low == -1.0
    assert high < 1.0


@pytest.mark.parametrize(("shape", "limit"), [((2, 4), 1.0), ((3,), 1.0), ((), math.sqrt(3.0)), ((9, 2, 4), 1.0)])
def test_glorot_fans(shape: tuple[int, ...], limit: float) -> None:
    raw = data.words(1, 4000)
    drawn = data._drawn(Init("glorot"), shape, raw, np.dtype("float64"))
    assert 0.99 * limit < np.max(np.abs(drawn)) <= limit


@pytest.mark.parametrize(("low", "high"), [(-3, 4), (-(2**63), 2**63 - 1), (2**62, 2**62 + 2), (0, 1)])
def test_integers_stay_in_their_range(low: int, high: int) -> None:
    drawn = [int(x) for x in data.integers(data.words(5, 1000), low, high)]
    assert low <= min(drawn) <= max(drawn) < high


def test_values_and_files(tmp_path: Path) -> None:
    stored = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez(tmp_path / "w.npz", W=stored, s=np.float32(2.5))
    W = one(an_input("W", "file", shape=(2, 3), dtype="float32", file=tmp_path / "w.npz", key="W"))
    np.testing.assert_array_equal(W, stored)
    assert (W.dtype, W.flags.c_contiguous) == (np.float32, True)
    scalar = one(an_input("s", "file", shape=(), file=tmp_path / "w.npz", key="s"))
    assert (scalar.shape, float(scalar)) == ((), 2.5)
    x = one(an_input("x", "value", Role.SEQUENCE, shape=(2,), value=[[1, 2], [3, 4], [5, 6]]))
    np.testing.assert_array_equal(x, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    flags = one(an_input("f", "value", shape=(2,), dtype="bool", value=[True, False]))
    np.testing.assert_array_equal(flags, np.array([True, False]))


def test_values_outside_their_bounds_are_told_with_any_seed() -> None:
    target = replace(an_input("W", "normal", a=1.0), bounds=(-math.inf, 3.0))
    largest = {seed: float(one(replace(target, bounds=None), seed=seed).max()) for seed in range(40)}
    assert min(largest.values()) < 3 < max(largest.values())
    for seed, value in largest.items():
        if value <= 3:
            assert one(target, seed=seed).max() == value
        else:
            with pytest.raises(ValueError, match=r"W\[\d+, \d+\] is 3\.\d+, outside its bounds \[null, 3\]"):
                one(target, seed=seed)
