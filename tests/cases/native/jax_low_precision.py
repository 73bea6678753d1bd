"""Products in bfloat16 within a float64 model: its gradient is right, and differences cannot look that closely."""

import jax.numpy as jnp
from jax import lax


def build():
    inputs = jnp.cos(jnp.arange(9.0)).reshape(3, 3)

    def loss(params):
        def step(h, x):
            product = h.astype(jnp.bfloat16) @ params["W"].astype(jnp.bfloat16)
            return jnp.tanh(product.astype(jnp.float64) + x), None

        return jnp.sum(lax.scan(step, jnp.ones(3), inputs)[0])

    return {"loss": loss, "params": {"W": 0.6 * jnp.eye(3) + 0.1}}
