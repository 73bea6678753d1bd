"""Every code gradcheck can give: its name, verdict and severity, and its page for `gradcheck explain`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib import resources

from gradcheck.errors import UsageError


@dataclass(frozen=True, slots=True)
class Code:
    """One code. Its meaning never changes.

    name: kebab-case; title: lowercase, a few words.
    verdict: the value of model.Verdict that a check with this code has (GC104 may also be disconnected, as may GC205);
    "" where the code is not about a check. severity: the value of model.Severity that its finding has.
    """

    code: str
    name: str
    title: str
    verdict: str
    severity: str


_ERROR, _UNSURE, _ADVICE = "error", "inconclusive", "advice"

_ALL = (
    Code("GC101", "null-random-draw", "no gradient through a random draw in the scanned step", "null", _ERROR),
    Code("GC102", "null-no-reverse-rule", "no gradient because an op has no reverse rule", "null", _ERROR),
    Code("GC103", "disconnected", "no gradient arrives, though the objective moves", "disconnected", _ERROR),
    Code("GC104", "dead-parameter", "neither the gradient nor the objective moves", "pass", _ADVICE),
    Code("GC105", "refused", "the framework refuses reverse mode", "null", _ERROR),
    Code("GC201", "wrong-gradient", "the gradient is wrong, cause unknown", "mismatch", _ERROR),
    Code("GC202", "noise-redrawn", "the backward pass redraws the noise", "mismatch", _ERROR),
    Code("GC203", "truncated-history", "the backward pass stops before the first step", "mismatch", _ERROR),
    Code("GC204", "constant-factor", "the gradient is off by a constant factor", "mismatch", _ERROR),
    Code("GC205", "blocked", "the gradient is blocked on the way", "mismatch", _ERROR),
    Code("GC206", "wrong-reverse-rule", "an op or custom function has a wrong reverse rule", "mismatch", _ERROR),
    Code("GC207", "transposed", "the gradient is transposed or permuted", "mismatch", _ERROR),
    Code("GC208", "scan-differs-from-unroll", "the scan's gradient differs from the unrolled one", "mismatch", _ERROR),
    Code("GC301", "nan-unselected-branch", "an unselected branch makes the gradient NaN", "nonfinite", _ERROR),
    Code("GC302", "singular-point", "the gradient is taken at a singular point", "nonfinite", _ERROR),
    Code("GC303", "forward-not-finite", "the forward pass itself is not finite", "nonfinite", _ERROR),
    Code("GC401", "stepwise-objective", "the objective is stepwise in the parameter", "inconclusive", _UNSURE),
    Code("GC402", "kink", "the objective has a kink at this point", "inconclusive", _UNSURE),
    Code("GC403", "rounding", "rounding hides the derivative", "inconclusive", _UNSURE),
    Code("GC404", "chaotic-or-exploding", "the rollout is chaotic or explodes", "inconclusive", _UNSURE),
    Code("GC501", "forward-not-repeatable", "the forward pass changes between equal calls", "nondeterministic", _ERROR),
    Code("GC502", "gradient-not-repeatable", "the gradient changes between equal calls", "nondeterministic", _ERROR),
    Code("GC601", "backends-disagree", "backends disagree on the forward value", "mismatch", _ERROR),
    Code("GC701", "shared-draw", "one draw is shared by all steps", "pass", _ADVICE),
    Code("GC702", "vanishing-or-exploding", "the gradient vanishes or explodes over time", "pass", _ADVICE),
    Code("GC703", "straight-through", "the gradient is an intended surrogate", "pass", _ADVICE),
    Code("GC801", "expectation-gone", "an expected finding no longer occurs", "", _ERROR),
    Code("GC901", "environment-broken", "a backend's environment does not work", "not_run", _ERROR),
    Code("GC902", "worker-crashed", "the backend's process died", "not_run", _ERROR),
    Code("GC903", "timed-out", "the time limit was reached", "not_run", _ERROR),
    Code("GC904", "out-of-memory", "the memory limit was reached", "not_run", _ERROR),
    Code("GC905", "step-failed", "the step raises or returns something else than it should", "not_run", _ERROR),
)

CODES: dict[str, Code] = {c.code: c for c in _ALL}


def family(code: str) -> str:
    """The family that an `expect` entry may name instead of the code: GC202 -> GC2xx."""
    return f"{code[:3]}xx"


def page(code: str) -> str:
    """The explanation of one code, as Markdown.

    Accepts GC202, gc202, 202 and noise-redrawn; anything else is a UsageError with a suggestion.
    """
    return resources.files("gradcheck.diagnosis").joinpath("pages", f"{_resolve(code)}.md").read_text(encoding="utf-8")


def _resolve(text: str) -> str:
    word = text.strip()
    if re.fullmatch(r"(?:gc)?\d{3}", word, re.IGNORECASE) and f"GC{word[-3:]}" in CODES:
        return f"GC{word[-3:]}"
    by_name = {c.name: c.code for c in _ALL}
    if word.lower() in by_name:
        return by_name[word.lower()]
    known = [*CODES, *by_name]
    guess = difflib.get_close_matches(f"GC{word}" if word.isdigit() else word.upper(), known, n=1)
    guess = guess or difflib.get_close_matches(word.lower(), known, n=1)
    members = [c for c in CODES if family(c).lower() == word.lower()]
    if members:
        raise UsageError(f"'{text}' is a family of codes", hint=f"its codes are {', '.join(members)}")
    hint = f"did you mean {guess[0]}?" if guess else f"the codes are {', '.join(CODES)}"
    raise UsageError(f"unknown code '{text}'", hint=hint)
