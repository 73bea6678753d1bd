"""The derivative of the gradient of a scan: reverse over reverse over reverse, and right."""

import pytensor
import pytensor.tensor as pt


def build():
    r = pt.dscalar("r")
    x = pytensor.scan(lambda x: r * x * (1 - x), outputs_info=[pt.constant(0.3)], n_steps=4, return_updates=False)
    slope = pytensor.grad(x[-1], r)
    return {"costs": {"bend": pytensor.grad(slope, r)}, "wrt": [r], "inputs": {r: 1.4}}
