"""A hand-written rule with one sign wrong, run in a scan."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def wave(angle, amount):
    return jnp.cos(angle) * amount


def forward(angle, amount):
    return wave(angle, amount), (angle, amount)


def reverse(kept, cotangent):
    angle, amount = kept
    return -jnp.sin(angle) * amount * cotangent, -jnp.cos(angle) * cotangent


wave.defvjp(forward, reverse)


def build():
    def step(params, carry, x):
        return wave(carry, params["amount"]) + x, None

    def loss(carry, outputs):
        return carry

    return {
        "step": step,
        "carry": jnp.asarray(0.5),
        "inputs": jnp.array([0.1, -0.2, 0.3, 0.0]),
        "params": {"amount": jnp.asarray(1.2)},
        "loss": loss,
    }
