"""Every backend has the same gradients of the shipped model, and says which framework it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradcheck.case_file import load
from gradcheck.catalog import load_backends

pytestmark = pytest.mark.backend

CASE = Path(__file__).parents[2] / "cases" / "rnn_vae.yaml"


@pytest.fixture(scope="module")
def of_a_numpy_loop(bench):
    with bench.session(load(CASE, bench.frameworks), "unroll") as session:
        return session.gradients()


@pytest.mark.parametrize("backend", [name for name in load_backends() if name != "unroll"])
def test_gradients_are_those_of_a_numpy_loop_to_ten_digits(bench, backend, of_a_numpy_loop):
    with bench.session(load(CASE, bench.frameworks), backend) as session:
        found = session.gradients()
    assert found.keys() == of_a_numpy_loop.keys()
    for pair, gradient in found.items():
        right = of_a_numpy_loop[pair].array
        assert np.abs(gradient.array - right).max() <= 1e-10 * np.abs(right).max(), pair
