"""One step of a variational RNN, like rnn_vae.py, that also returns the noise it was given."""


def gaussian_kl(xp, mu, log_var):
    """KL(N(mu, exp(log_var)) || N(0, 1)), (batch, latent) -> (batch,); expm1(r) - r loses no digits near the prior."""
    return 0.5 * xp.sum(xp.expm1(log_var) - log_var + mu**2, axis=-1)


def iter_step(
    xp, x, h, eps, W_ex, W_eh, b_e, W_mu, b_mu, W_sigma, b_sigma, W_dz, W_dh, W_out, b_out, W_x, W_h, W_z, b_h
):
    """x: (batch, input), h: (batch, hidden), eps: (batch, latent), standard normal."""
    e = xp.tanh(x @ W_ex + h @ W_eh + b_e)
    mu = e @ W_mu + b_mu
    log_var = e @ W_sigma + b_sigma
    z = mu + xp.exp(0.5 * log_var) * eps

    x_hat = xp.tanh(z @ W_dz + h @ W_dh) @ W_out + b_out
    obj = 0.5 * xp.sum((x - x_hat) ** 2, axis=-1) + gaussian_kl(xp, mu, log_var)

    h = xp.tanh(x @ W_x + h @ W_h + z @ W_z + b_h)

    # "eps" is the point of this case: outputs are kept for all steps, so the backward pass need not draw anew
    return {"h": h, "obj": obj, "eps": eps}
