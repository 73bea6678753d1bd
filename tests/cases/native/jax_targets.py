"""Values whose targets are stopped on purpose; the same network with its history cut, rounded, and gated by a stopped value."""

import jax.numpy as jnp
from jax import lax


def build():
    inputs = jnp.cos(jnp.arange(14.0)).reshape(7, 2)
    params = {"W": jnp.array([[0.4, -0.5], [0.3, 0.6]]), "v": jnp.array([0.7, -0.9])}

    def values(params, carried=lambda h: h):
        def step(h, x):
            h = jnp.tanh(carried(h) @ params["W"] + x)
            return h, h @ params["v"]

        return lax.scan(step, jnp.zeros(2), inputs)[1]

    def temporal_difference(params):
        value = values(params)
        target = lax.stop_gradient(0.5 + 0.9 * value[1:])
        return jnp.sum((value[:-1] - target) ** 2)

    def cut(params):
        return jnp.sum(values(params, lambda h: lax.stop_gradient(h)))

    def rounded(params):
        return jnp.sum(values(params, lambda h: h + lax.stop_gradient(jnp.round(8 * h) / 8 - h)))

    def gated(params):
        value = values(params)
        return jnp.sum(value * lax.stop_gradient(jnp.exp(value)))

    losses = {"td": temporal_difference, "cut": cut, "rounded": rounded, "gated": gated}
    return {"loss": losses, "params": params}
