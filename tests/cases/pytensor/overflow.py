"""A branch that is not taken overflows: its derivative is infinite, and 0 times that is NaN."""

import pytensor.tensor as pt
from pytensor.ifelse import ifelse


def build():
    x = pt.dscalar("x")
    grown = pt.exp(2.0 * x)
    return {"costs": {"y": ifelse(pt.lt(x, 1.0), grown, 3.0 * x)}, "wrt": [x], "inputs": {x: 600.0}}
