"""The step of the benchmark's model, an RNN with a reparameterised latent that feeds its carry: for every framework the same."""

NAMES = ("W_mu", "W_s", "W_x", "W_h", "W_z", "b_h", "W_o")


def step(xp, activation, p, h, x, eps):
    """(next carry, this step's loss). p: the parameters in the order of NAMES."""
    w_mu, w_s, w_x, w_h, w_z, b_h, w_o = p
    mu, s = h @ w_mu, h @ w_s
    z = mu + xp.exp(0.5 * s) * eps
    h = activation(x @ w_x + h @ w_h + z @ w_z + b_h)
    return h, ((h @ w_o - x) ** 2).sum() + 0.5 * (mu**2 + xp.exp(s) - s - 1).sum()
