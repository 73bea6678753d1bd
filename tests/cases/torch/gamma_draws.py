"""A scale from a Gamma and a share from a Beta distribution, reparameterised implicitly: no one draw shows the gradient."""

import torch


def build():
    torch.set_default_dtype(torch.float64)

    def loss(params):
        scale = torch.distributions.Gamma(params["shape"], 2.0).rsample()
        share = torch.distributions.Beta(params["shape"][:1], 3.0).rsample()
        return torch.sqrt(scale).sum() + share.sum()

    return {"loss": loss, "params": {"shape": torch.tensor([1.4, 2.2])}}
