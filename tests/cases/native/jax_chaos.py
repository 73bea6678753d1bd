"""The logistic map: the gradient is right and no difference can follow it."""

import jax
import jax.numpy as jnp


def build():
    def loss(params):
        def step(x, _):
            return params["r"] * x * (1 - x), None

        return jax.lax.scan(step, 0.3, None, length=70)[0]

    return {"loss": loss, "params": {"r": jnp.asarray(3.9)}}
