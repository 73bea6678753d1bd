"""Expressions that a scan is given, or that its step makes for itself: neither is a copy of one around it."""

import theano
import theano.tensor as T


def build():
    root = theano.shared(0.9, "root")
    given, apart = T.exp(root), T.sin(root)
    given.name, apart.name = "given", "apart"
    values, _ = theano.scan(
        lambda t, given: T.tanh(given * t) + T.sin(root),
        sequences=[T.arange(1.0, 4.0)],
        non_sequences=[given],
    )
    return {"costs": {"total": values.sum() * apart}, "wrt": [given, apart, root]}
