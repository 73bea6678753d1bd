"""An op of one's own whose pullback forgot a factor, inside a scan that looks two steps back."""

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op


class Cube(Op):
    """x ** 3, with the rule of x ** 2."""

    __props__ = ()

    def make_node(self, x):
        x = pt.as_tensor(x)
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.asarray(inputs[0] ** 3)

    def pullback(self, inputs, outputs, cotangents):
        return [2 * inputs[0] * cotangents[0]]


def build():
    rate = pt.dscalar("rate")
    cube = Cube()
    return {
        "scan": {
            "fn": lambda before, last, rate: pt.tanh(rate * last + 0.5 * cube(before)),
            "outputs_info": [{"initial": pt.constant([0.4, 0.7]), "taps": [-2, -1]}],
            "non_sequences": [rate],
            "n_steps": 4,
        },
        "objectives": {"total": lambda h: h.sum()},
        "wrt": [rate],
        "inputs": {rate: 0.6},
    }
