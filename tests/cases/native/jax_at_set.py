"""One place written twice: the last one counts, in the gradient too."""

import jax.numpy as jnp


def build():
    def loss(params):
        t = params["t"]
        return jnp.sum(jnp.zeros(3).at[jnp.array([1, 1])].set(jnp.stack([t, 3.0 * t * t])) ** 2)

    return {"loss": loss, "params": {"t": jnp.asarray(1.5)}}
