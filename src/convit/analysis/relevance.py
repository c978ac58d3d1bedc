"""The relevance of patches for a class, by the gradients of a captured pass."""

import torch
from torch import Tensor

from convit.analysis.capture import Capture
from convit.analysis.metrics import picture, relevance_rollout
from convit.errors import InputError


def relevance(shot: Capture, target: int | Tensor | None = None) -> Tensor:
    """The relevance of each patch for a class: :func:`relevance_rollout` of a captured pass, as the head reads it.

    Args:
        shot: what ``capture(model, images, keep_graph=True)`` returned, of all layers. It can be used again for other
            classes; no ``grad`` of any parameter changes.
        target: the class to explain, one for all images or ``(B,)``; each image's predicted class if left out.

    Returns:
        ``(B, H, W)``, at least 0, without a fixed scale: the row of the class token, or, in a model that pools patches,
        the mean over their rows, without the identity.

    Raises:
        InputError: captured without a graph, no such class, or a model that pools in another way.

    Example:
        >>> from convit import ConViT
        >>> from convit.analysis import capture
        >>> model = ConViT(img_size=16, patch_size=4, num_classes=5, embed_dim=18, depth=2, num_heads=9,
        ...                local_up_to_layer=1)
        >>> relevance(capture(model, torch.randn(2, 3, 16, 24), keep_graph=True)).shape
        torch.Size([2, 4, 6])
    """
    if not shot.logits.requires_grad or not shot.layers:
        raise InputError("shot: got maps without a graph, expected capture(model, images, keep_graph=True)")
    maps = [layer.mixed for layer in shot.layers]
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller is in
        score = _logits_of(shot.logits, target).sum()  # images do not mix: each map gets its own image's gradient
        gradients = torch.autograd.grad(score, maps, retain_graph=True, materialize_grads=True)
    total = relevance_rollout([attention.detach() for attention in maps], gradients)
    last = shot.layers[-1]
    total = total - torch.eye(total.shape[-1], dtype=total.dtype, device=total.device)
    return picture(total, last.grid, last.num_prefix_tokens, shot.pooling)


def _logits_of(logits: Tensor, target: int | Tensor | None) -> Tensor:
    """One logit an image, ``(B,)``."""
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise InputError(f"logits: got shape {tuple(logits.shape)}, expected (batch, classes): a model with a head")
    batch, classes = logits.shape
    index = logits.argmax(1) if target is None else torch.as_tensor(target, device=logits.device)
    if index.is_floating_point() or index.shape not in ((), (batch,)) or not ((index >= 0) & (index < classes)).all():
        got = index.tolist()
        raise InputError(f"target: got {got}, expected a class from 0 to {classes - 1}, one for all or one an image")
    return logits.gather(1, index.expand(batch)[:, None])[:, 0]
