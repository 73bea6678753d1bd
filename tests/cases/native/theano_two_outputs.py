"""An op with two outputs, whose rule has the wrong sign for the second; it expects a cotangent of both."""

import numpy as np
import theano
import theano.tensor as T
from theano.graph.basic import Apply
from theano.graph.op import Op


class Polar(Op):
    __props__ = ()

    def make_node(self, angle):
        angle = T.as_tensor_variable(angle)
        return Apply(self, [angle], [angle.type(), angle.type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0], outputs[1][0] = np.asarray(np.cos(inputs[0])), np.asarray(np.sin(inputs[0]))

    def grad(self, inputs, cotangents):
        return [-cotangents[0] * T.sin(inputs[0]) - cotangents[1] * T.cos(inputs[0])]


def build():
    turn = theano.shared(0.7, "turn")

    def step(angle, turn):
        x, y = Polar()(angle * turn)
        return x + 0.4 * y

    path, _ = theano.scan(step, outputs_info=[T.constant(0.5, dtype="float64")], non_sequences=[turn], n_steps=3)
    return {"costs": {"end": path[-1]}, "wrt": [turn]}
