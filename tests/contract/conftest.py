"""The bench of the contract battery, on every backend that the catalog finds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gradcheck.catalog import load_backends
from gradcheck.contract.bench import Bench
from gradcheck.crew import Crew
from gradcheck.workers import Limits


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    catalog = load_backends()
    crew = Crew(catalog, given={}, offline=False, limits=Limits(), jobs=None, progress=lambda line: None)
    with crew:
        yield Bench(tmp_path_factory.mktemp("contract"), crew, catalog)
