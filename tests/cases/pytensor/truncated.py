"""A scan that looks back three steps only when it is differentiated."""

import numpy as np
import pytensor
import pytensor.tensor as pt


def build():
    weight = pytensor.shared(0.9, "weight")
    drive = pt.constant(np.linspace(-0.5, 0.8, 8))
    return {
        "scan": {
            "fn": lambda x, h: pt.sin(weight * h + x),
            "sequences": [drive],
            "outputs_info": [pt.constant(0.2)],
            "truncate_gradient": 3,
        },
        "objectives": {"end": lambda h: h[-1]},
        "wrt": [weight],
    }
