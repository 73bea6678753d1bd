"""Tells whether the gradients of a model step are right when the step is run over time.

`gradcheck.run(paths)` checks case files, each in its framework's own process; `gradcheck.check(loss, params)` checks a model that
lives in this one; `gradcheck.assert_correct(loss, params)` does so in a test.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gradcheck.api import assert_correct, check, run
    from gradcheck.errors import GradcheckError, GradientError
    from gradcheck.model import Report

__all__ = ["GradcheckError", "GradientError", "Report", "__version__", "assert_correct", "check", "run"]

_HOME = {
    "assert_correct": "gradcheck.api",
    "check": "gradcheck.api",
    "run": "gradcheck.api",
    "GradcheckError": "gradcheck.errors",
    "GradientError": "gradcheck.errors",
    "Report": "gradcheck.model",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import gradcheck` alone costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_HOME[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
