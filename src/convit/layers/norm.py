"""Batch norm for tokens, in place of the layer norm of transformers."""

import torch.nn.functional as F
from torch import Tensor, nn


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch norm of tokens ``(B, N, C)``: each channel by its mean and variance over all tokens of all images.

        y = (x - mean) / sqrt(variance + eps) * weight + bias

    Training uses mean and variance of the batch, evaluation their running means. A layer norm uses mean and variance of
    each token alone, so the relative magnitude of tokens is lost; batch norm keeps it, as in CNNs, which learn from few
    images.

    Args:
        num_features: width C.
        eps, momentum: as in ``torch.nn.BatchNorm1d``, as all its arguments.

    >>> import torch
    >>> TokenBatchNorm(8)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` to the same shape."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        means, variances, training = self.running_mean, self.running_var, self.training
        # Written out, because neither TorchScript nor FX goes through BatchNorm1d.forward.
        out = F.batch_norm(
            x.flatten(0, 1), means, variances, self.weight, self.bias, training, self.momentum or 0.0, self.eps
        )
        return out.view_as(x)
