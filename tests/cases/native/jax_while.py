"""A loop whose length is found at run time cannot be run backwards."""

import jax
import jax.numpy as jnp


def build():
    def loss(params):
        def grow(state):
            count, value = state
            return count + 1, value * params["ratio"]

        return jax.lax.while_loop(lambda state: state[0] < 4, grow, (0, 1.0))[1]

    return {"loss": loss, "params": {"ratio": jnp.asarray(1.4)}}
