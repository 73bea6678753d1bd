"""One step of a variational RNN (Chung et al. 2015): a Gaussian VAE at every step, whose latent feeds the state.

Shared by three cases that differ only in where the noise is drawn: rnn_vae.yaml, rnn_vae_shared_noise.yaml and
rnn_vae_noise_in_step.yaml.
"""


def gaussian_kl(xp, mu_q, log_var_q, mu_p, log_var_p):
    """KL(q || p) of two diagonal Gaussians, (batch, latent) -> (batch,).

    Written with expm1(r) - r, which is never negative and loses no digits where q is close to p.
    """
    r = log_var_q - log_var_p
    return 0.5 * xp.sum(xp.expm1(r) - r + (mu_q - mu_p) ** 2 * xp.exp(-log_var_p), axis=-1)


def iter_step(
    xp,
    x,
    h,
    eps,
    W_ex,
    W_eh,
    b_e,
    W_mu,
    b_mu,
    W_sigma,
    b_sigma,
    W_p,
    b_p,
    W_pmu,
    b_pmu,
    W_psigma,
    b_psigma,
    W_dz,
    W_dh,
    b_d,
    W_out,
    b_out,
    W_x,
    W_h,
    W_z,
    b_h,
    W_f,
    b_f,
    W_est,
    b_est,
):
    """x: (batch, input), h: (batch, hidden), eps: (batch, latent), standard normal.

    Returns h: (batch, hidden), obj: (batch,), est: (batch, input).
    """
    # posterior q(z | x, h) and prior p(z | h)
    e = xp.tanh(x @ W_ex + h @ W_eh + b_e)
    mu = e @ W_mu + b_mu
    log_var = e @ W_sigma + b_sigma
    p = xp.tanh(h @ W_p + b_p)
    mu_prior = p @ W_pmu + b_pmu
    log_var_prior = p @ W_psigma + b_psigma

    # the draw, reparameterised: mu + sigma * eps is differentiable in mu and sigma
    z = mu + xp.exp(0.5 * log_var) * eps

    # decoder p(x | z, h), a Gaussian of variance one
    d = xp.tanh(z @ W_dz + h @ W_dh + b_d)
    x_hat = d @ W_out + b_out
    reconstruction = 0.5 * xp.sum((x - x_hat) ** 2, axis=-1)
    obj = reconstruction + gaussian_kl(xp, mu, log_var, mu_prior, log_var_prior)

    # the latent feeds the carry: every later step depends on this step's draw
    h = xp.tanh(x @ W_x + h @ W_h + z @ W_z + b_h)

    # a forecast of the next input from the new state
    f = xp.tanh(h @ W_f + b_f)
    est = f @ W_est + b_est
    return {"h": h, "obj": obj, "est": est}
