"""Every name that xp guarantees, on every framework: values against plain NumPy, gradients against differences."""

from __future__ import annotations

from itertools import chain

import pytest

from gradcheck._backends._worker.names import XP_NAMES
from gradcheck._backends._worker.xp_battery import scenarios
from gradcheck.catalog import load_backends
from gradcheck.contract.functions import battery, needs

CATALOG = load_backends()
BATTERY = battery()
PAIRS = [(scenario, rollout) for scenario in BATTERY for rollout in CATALOG if scenario.concerns(rollout, CATALOG)]
if not PAIRS:
    raise RuntimeError("nothing to test: no backend or no scenario was found")


@pytest.mark.backend
@pytest.mark.parametrize(("scenario", "rollout"), PAIRS, ids=[f"{rollout}-{s.name}" for s, rollout in PAIRS])
def test_the_contract(bench, scenario, rollout):
    scenario.run(bench, rollout)


def used(battery, words):
    return list(chain.from_iterable(s.check.args[1] for s in battery if words in s.name))


def test_the_battery_holds_every_use_and_every_name():
    assert [use.name for use in used(BATTERY, "in float64")] == [use.name for use in scenarios()]
    for words in ("in float32", "inside a scan"):
        assert [use.covers for use in used(BATTERY, words)] == list(XP_NAMES)


def test_of_a_backend_with_fewer_names_only_what_these_suffice_for_is_asked():
    names = {"tanh", "where", "exp"}
    found = used(battery(names), "in float64")
    assert {use.covers for use in found} == names
    assert all(needs(use) <= names for use in found)
    assert "where[unselected branch is finite]" not in {use.name for use in found}  # it calls sqrt
