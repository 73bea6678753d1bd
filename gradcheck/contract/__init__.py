"""The contract battery: what every backend has to do, as scenarios that run in its real environment.

One set for all: `gradcheck doctor --contract DIR` runs it on a foreign backend, the tests run it on the shipped ones. A
scenario raises AssertionError, or a GradcheckError of the worker, with what does not hold; it is silent if all is well.
"""

from __future__ import annotations

from collections.abc import Collection

from gradcheck._backends._worker.names import XP_NAMES
from gradcheck.contract import functions, operations, scenarios, second
from gradcheck.contract.bench import Scenario


def battery(names: Collection[str] = XP_NAMES) -> tuple[Scenario, ...]:
    """Every scenario, in the order in which they are best understood. names: those of xp that the backend has."""
    return (*operations.SCENARIOS, *scenarios.SCENARIOS, *functions.battery(names), *second.SCENARIOS)
