"""`--order 2`: the Hessian-vector product as a gradient of its own.

phi(x) = gradient(x) . w, summed over an objective's inputs, with one fixed random direction w, is a scalar like any objective.
Its values come from the framework's own first-order gradient, its gradient is the Hessian-vector product H w; so the very
examination that judges gradients judges second derivatives: differences of phi against the reverse pass through the reverse pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradcheck.evidence import Evidence
from gradcheck.examine import probe_key, tensor_scales
from gradcheck.model import Case, Verdict
from gradcheck.session import Arrays, rms


def contracted(case: Case, arrays: Arrays, checks: Sequence[Evidence]) -> Case | None:
    """The case with gradient . w for objectives, over the inputs whose own gradient passed; None if none did, and for a native
    model, whose objectives are its own.

    w is expanded on the worker's side from the keys, the same on every backend, in units of each input's root mean square.
    """
    if case.native:
        return None
    passed = {(e.check.objective, e.check.parameter) for e in checks if e.check.verdict is Verdict.PASS}
    objectives = [replace(o, wrt=tuple(n for n in o.wrt if (o.name, n) in passed)) for o in case.objectives]
    names = list(dict.fromkeys(name for o in objectives for name in o.wrt))
    if not names:
        return None
    scales = tensor_scales({name: rms(arrays[name]) for name in names})
    contraction = tuple((name, scales[name], probe_key(case.seed, "contraction", name)) for name in names)
    return replace(case, objectives=tuple(o for o in objectives if o.wrt), contraction=contraction)
