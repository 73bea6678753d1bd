"""Errors that a user sees: fixed slots, a code, an exit status; never a traceback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradcheck.model import Report


@dataclass
class GradcheckError(Exception):
    """One error as a user reads it.

    message: what is wrong (lowercase, stands alone); context: where, or the words of whoever noticed it;
    note: what was not affected; hint: what to do; code: the GC9xx code, or "" if it is none of those.
    """

    message: str
    context: str = ""
    note: str = ""
    hint: str = ""
    code: str = ""

    def __str__(self) -> str:
        return self.message


class UsageError(GradcheckError):
    """The command line, the configuration or the selection makes no sense: exit code 2."""


class BackendError(GradcheckError):
    """A backend could not do its work (code 901 environment, 902 crash, 903 timeout, 904 memory, 905 the step)."""


class GradientError(AssertionError):
    """What gradcheck.assert_correct raises, and nothing else. Its message is the text of the findings.

    report: what was found; None if it never came to a check, because the model or the arguments make no sense.
    """

    __module__ = "gradcheck"  # as users know it, in a test's output too

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report


def log_traceback() -> str:
    """Write the traceback of what is being handled to a file of its own; returns its path."""
    import shlex
    import sys
    import tempfile
    import traceback

    from gradcheck import __version__

    with tempfile.NamedTemporaryFile("w", prefix="gradcheck-internal-", suffix=".log", delete=False) as log:
        log.write(f"gradcheck {__version__}, Python {sys.version}\n{shlex.join(sys.argv)}\n\n{traceback.format_exc()}")
    return log.name
