"""An op of the user's that says that its second input does not matter."""

import numpy as np
import theano
import theano.tensor as T
from theano.gradient import DisconnectedType
from theano.graph.basic import Apply
from theano.graph.op import Op


class Ratio(Op):
    __props__ = ()

    def make_node(self, above, below):
        above, below = T.as_tensor_variable(above), T.as_tensor_variable(below)
        return Apply(self, [above, below], [above.type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.asarray(inputs[0] / inputs[1])

    def connection_pattern(self, node):
        return [[True], [False]]

    def grad(self, inputs, cotangents):
        return [cotangents[0] / inputs[1], DisconnectedType()()]


def build():
    below = theano.shared(1.7, "below")
    path, _ = theano.scan(
        lambda h, below: T.sin(Ratio()(h, below)) + 0.2,
        outputs_info=[T.constant(0.8, dtype="float64")],
        non_sequences=[below],
        n_steps=3,
    )
    return {"costs": {"end": path[-1]}, "wrt": [below]}
