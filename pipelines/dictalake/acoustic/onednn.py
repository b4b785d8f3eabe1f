"""The only door to PyTorch's private operators for products with weights that are packed for oneDNN.

PyTorch promises nothing about them, so they are tried before they are used. Where they are gone, take other arguments or
compute something else, the model takes PyTorch's usual product, and a warning says so. It gives the same numbers, on AMD in
twice the time.

``bfloat16_probe`` runs this file in its child, so it imports nothing of dictalake.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch.nn import functional

# transformers' name of an activation → oneDNN's.
ACTIVATIONS: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "silu": ("swish", functional.silu),
    "relu": ("relu", functional.relu),
    "none": ("none", lambda x: x),
}
REFUSALS = (AttributeError, TypeError, RuntimeError)  # no such operator; other arguments; not on this processor


def pack_weight(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` as ``multiply`` takes it. Raises RuntimeError where oneDNN cannot compute in its dtype."""
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return packed


def multiply(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, activation: str) -> torch.Tensor:
    """``activation(x @ weight.T + bias)``, with oneDNN's name of the activation."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, activation, [], "")
    return product


@functools.cache
def can_multiply() -> bool:
    """Whether the operators of this PyTorch do what they are used for, in float32. A process warns once where not."""
    x, weight, bias = (torch.linspace(-1, 1, size) for size in (2 * 3 * 16, 8 * 16, 8))
    x, weight = x.view(2, 3, 16), weight.view(8, 16)
    try:
        for name, activate in ACTIVATIONS.values():
            for of_bias in (bias, None):
                product = multiply(x, pack_weight(weight), of_bias, name)
                # Sums in another order differ in the last digits, and where they are near 0 by a large part of them.
                if not torch.allclose(product, activate(functional.linear(x, weight, of_bias)), atol=1e-5):
                    raise RuntimeError(f"{name} gives other numbers")
    except REFUSALS as error:
        reason = str(error).partition("\n")[0]
        warning = f"the model runs without weights packed for oneDNN, on some processors at half the speed: {reason}"
        logging.getLogger("dictalake").warning(warning, extra={"event": "no_packed_weights"})
        return False
    return True
