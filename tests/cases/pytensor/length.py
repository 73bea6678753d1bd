"""The length of a vector of zeros has no slope, and the rules of its parts make NaN of it."""

import numpy as np
import pytensor
import pytensor.tensor as pt


def build():
    v = pytensor.shared(np.zeros(3), "v")
    return {"costs": {"length": pt.sqrt(pt.sum(v**2))}, "wrt": [v]}
