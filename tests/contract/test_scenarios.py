"""What a case may hold, on every backend: each combination passes, and its values are those of a plain NumPy loop."""

from __future__ import annotations

import pytest

from gradcheck.catalog import load_backends
from gradcheck.contract.scenarios import CASES, SCENARIOS

pytestmark = pytest.mark.backend

ROLLOUTS = load_backends()
if not ROLLOUTS:
    raise RuntimeError("nothing to test: no backend was found")


@pytest.mark.parametrize("rollout", ROLLOUTS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_contract(bench, scenario, rollout):
    scenario.run(bench, rollout)


def test_every_case_has_its_scenarios():
    assert len(SCENARIOS) == 2 * len(CASES) > 60
