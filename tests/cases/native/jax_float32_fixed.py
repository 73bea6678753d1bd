"""Correct float32 code that holds its own precision: there is no float64 twin to compare with."""

import jax
import jax.numpy as jnp
import numpy as np


def build():
    def loss(params):
        start = jnp.full((3,), 0.3, dtype=jnp.float32)

        def step(carry, _):
            return jnp.tanh(params["W"] @ carry).astype(jnp.float32), None

        return 1000.0 + jax.lax.scan(step, start, None, length=12)[0].sum()

    weights = np.array([[0.5, -0.4, 0.1], [0.3, 0.9, -0.2], [0.2, 0.1, 0.7]], dtype=np.float32)
    return {"loss": loss, "params": {"W": weights}}
