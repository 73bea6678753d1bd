"""A character model in plain JAX: parameters in a pytree, a gated cell under lax.scan, a cross-entropy loss."""

import jax
import jax.numpy as jnp


def init(key, vocabulary=7, width=5):
    keys = jax.random.split(key, 5)
    return {
        "embedding": 0.5 * jax.random.normal(keys[0], (vocabulary, width)),
        "cell": {
            "W": 0.4 * jax.random.normal(keys[1], (2 * width, 2 * width)),
            "b": jnp.zeros(2 * width),
        },
        "readout": [
            {"w": 0.4 * jax.random.normal(keys[2], (width, width)), "b": jnp.zeros(width)},
            {"w": 0.4 * jax.random.normal(keys[3], (width, vocabulary)), "b": jnp.zeros(vocabulary)},
        ],
    }


def step(params, carry, token):
    """carry: (width,); token: an index. Returns the new carry and the logits of the next token."""
    seen = jnp.concatenate([params["embedding"][token], carry])
    gate, candidate = jnp.split(seen @ params["cell"]["W"] + params["cell"]["b"], 2)
    carry = carry + jax.nn.sigmoid(gate) * (jnp.tanh(candidate) - carry)
    hidden = carry
    for layer in params["readout"][:-1]:
        hidden = jax.nn.gelu(hidden @ layer["w"] + layer["b"])
    return carry, hidden @ params["readout"][-1]["w"] + params["readout"][-1]["b"]


def build():
    text = jnp.array([0, 3, 1, 4, 1, 5, 6, 2, 6, 5, 3])

    def cross_entropy(carry, logits):
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), text[1:, None], axis=1)
        return -jnp.mean(chosen)

    return {
        "step": step,
        "carry": jnp.zeros(5),
        "inputs": text[:-1],
        "params": init(jax.random.key(0)),
        "loss": {"cross_entropy": cross_entropy},
    }
