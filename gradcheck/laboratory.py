"""Where a diagnosis runs things: cases prepared on any backend, until the time for this case is used up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gradcheck.catalog import Backend
from gradcheck.crew import Crew
from gradcheck.errors import BackendError
from gradcheck.model import Case
from gradcheck.session import Arrays, Session

DIAGNOSE_SECONDS = 60.0  # at most, for one case, unless --diagnose-seconds says otherwise
TIMES = 10.0  # what the checks took
LEAST = 10.0  # seconds: a check of milliseconds says little about what a look at its ops takes


def seconds_for(checking: float) -> float:
    """What a case's diagnosis may take where nobody says otherwise. checking: what its checks took, in seconds."""
    return min(DIAGNOSE_SECONDS, max(TIMES * checking, LEAST))


class Laboratory:
    """Sessions for counterfactuals. Once the time is up every request raises BackendError, and a running one is ended."""

    def __init__(self, crew: Crew, seconds: float = DIAGNOSE_SECONDS) -> None:
        self._crew, self.seconds = crew, seconds
        self.ran_out = False  # whether something was asked for, or was running, when the time was up
        self._deadline = time.monotonic() + seconds

    @property
    def catalog(self) -> Mapping[str, tuple[Backend, str]]:
        return self._crew.catalog

    @property
    def is_closed(self) -> bool:
        return time.monotonic() >= self._deadline

    @contextmanager
    def session(self, case: Case, name: str, arrays: Arrays, widen: bool = False) -> Iterator[Session]:
        """A prepared case on a backend. Raises BackendError, also when the time is up. widen: see Crew.session."""
        if self.is_closed:
            self.ran_out = True
            raise BackendError(self.closed_words(), code="GC903")
        try:
            with self._crew.session(case, name, arrays, widen, deadline=self._deadline) as session:
                yield session
        except BackendError:
            self.ran_out |= self.is_closed
            raise

    def closed_words(self) -> str:
        return f"not finished: the {self.seconds:.3g} s of --diagnose-seconds are used up"
