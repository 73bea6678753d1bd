"""A volatility that scales noise drawn inside the scan: its inner gradient needs the draw."""

import theano
import theano.tensor as T
from theano.tensor.random.utils import RandomStream


def build():
    log_vol = theano.shared(0.3, "log_vol")
    stream = RandomStream(seed=11)

    def walk(level, log_vol):
        return T.tanh(0.8 * level + T.exp(log_vol) * stream.normal(size=()))

    return {
        "scan": {
            "fn": walk,
            "outputs_info": [T.constant(0.1, dtype="float64")],
            "non_sequences": [log_vol],
            "n_steps": 5,
        },
        "objectives": {"end": lambda level: level[-1]},
        "wrt": [log_vol],
    }
