"""LASR's CTC model (MedASR's architecture) arranged for inference: the same weights and arithmetic as
``transformers.LasrForCTC``, in fewer and larger steps.

What differs, and why it is faster (``infra/benchmarks/notes.md`` has the figures):

- activations stay ``(batch, frames, channels)``: the pointwise convolutions are matrix products, nothing is transposed;
- BatchNorm is folded into the depthwise convolution, residual weights into the layers before them, in float32;
- queries, keys and values are one product, and rotated together;
- on CPUs weights are packed once for oneDNN, which in float32 is twice as fast here as PyTorch's usual product on AMD.

Attention without a mask when all windows are full, else over the frames that a mask leaves, as in transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import LasrForCTC

from pipelines.errors import ConfigError

# What transformers calls it, what oneDNN does.
_ACTIVATIONS = {"silu": ("swish", functional.silu), "relu": ("relu", functional.relu), "none": ("none", lambda x: x)}


class _Product(nn.Module):
    """``activation(x @ weight.T + bias)``."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, activation: str = "none") -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self._fused, self._activation = _ACTIVATIONS[activation]
        self._packed: torch.Tensor | None = None

    def pack(self) -> None:
        """For oneDNN. The weight is kept in the packed form alone."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous())
        self.weight = self.weight.new_empty(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._packed is None:
            return self._activation(functional.linear(x, self.weight, self.bias))
        fused: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, self._fused, [], "")
        return fused


class _Block(nn.Module):
    """One Conformer block."""

    depthwise: torch.Tensor
    shift: torch.Tensor

    def __init__(self, layer: Any, activation: str) -> None:
        super().__init__()
        attention, conv = layer.self_attn, layer.conv
        self._activation = _ACTIVATIONS[activation][1]
        self._heads, self._scale = attention.config.num_attention_heads, attention.scaling
        self.norms = nn.ModuleList(
            [layer.norm_feed_forward1, layer.norm_self_att, layer.norm_conv, layer.norm_feed_forward2, layer.norm_out]
        )
        (self._keep_ff, add_ff), (self._keep_conv, add_conv) = layer.feed_forward_residual_weights, layer.conv_residual_weights
        self.feed_forwards = nn.ModuleList(
            [
                nn.Sequential(_product(ff.linear1, activation), _product(ff.linear2, scale=add_ff))
                for ff in (layer.feed_forward1, layer.feed_forward2)
            ]
        )
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        biases = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        self.qkv = _Product(torch.cat([part.weight for part in parts]), biases)
        self.output = _product(attention.o_proj)
        self.pointwise1, self.pointwise2 = _product(conv.pointwise_conv1), _product(conv.pointwise_conv2, scale=add_conv)
        norm = conv.norm
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        bias = 0.0 if conv.depthwise_conv.bias is None else conv.depthwise_conv.bias
        self.register_buffer("depthwise", (conv.depthwise_conv.weight * gain[:, None, None])[:, :, None, :])
        self.register_buffer("shift", norm.bias + (bias - norm.running_mean) * gain)
        kernel = self.depthwise.shape[-1]
        self._padding = ((kernel - 1) // 2, kernel - 1 - (kernel - 1) // 2)  # as padding="same" does it

    def forward(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        # Not torch.add(…, alpha=…): it rounds the last few numbers of a thread's share otherwise than the rest, so that what a
        # window gives would depend on the size of its batch.
        x = self.feed_forwards[0](self.norms[0](x)).add_(x * self._keep_ff)
        x = x + self._attend(self.norms[1](x), rotation, mask)
        x = self._convolve(self.norms[2](x), mask).add_(x * self._keep_conv)
        x = self.feed_forwards[1](self.norms[3](x)).add_(x * self._keep_ff)
        normed: torch.Tensor = self.norms[4](x)
        return normed

    def _attend(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        batch, frames, channels = x.shape
        qkv = self.qkv(x).view(batch, frames, 3, self._heads, -1).permute(2, 0, 3, 1, 4).contiguous()
        cos, sin = rotation
        turned = qkv[:2].roll(cos.shape[-1] // 2, -1).mul_(sin)
        queries, keys = turned.add_(qkv[:2].mul(cos)).unbind()
        attended = _attention(queries, keys, qkv[2], mask, self._scale)
        out: torch.Tensor = self.output(attended.transpose(1, 2).reshape(batch, frames, channels))
        return out

    def _convolve(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x = functional.glu(self.pointwise1(x), dim=-1)
        if mask is not None:
            x = x.masked_fill(~mask[:, :, None], 0.0)
        # (batch, channels, 1, frames) without moving a number: the layout that oneDNN and cuDNN call channels-last
        x = functional.pad(x, (0, 0, *self._padding)).transpose(1, 2)[:, :, None, :]
        x = functional.conv2d(x, self.depthwise, self.shift, groups=self.depthwise.shape[0])
        out: torch.Tensor = self.pointwise2(self._activation(x)[:, :, 0, :].transpose(1, 2))
        return out


class FastLasr(nn.Module):
    """Features ``(batch, feature_frames, mel_bands)`` → logits ``(batch, frames, vocabulary)``."""

    def __init__(self, model: LasrForCTC) -> None:
        """``model`` in float32. Layers that need no change are shared with it: it should not be used on.

        Raises ConfigError for an activation that LASR checkpoints do not have.
        """
        super().__init__()
        encoder = model.encoder
        activation = encoder.config.hidden_act
        if activation not in _ACTIVATIONS:
            raise ConfigError(f"acoustic.model: hidden_act = {activation} is not supported in LASR models; silu and relu are")
        subsampler = encoder.subsampler
        self._kernel, self._stride = encoder.config.subsampling_conv_kernel_size, encoder.config.subsampling_conv_stride
        self.dense_0, self.dense_1 = _product(subsampler.dense_0, "relu"), _product(subsampler.dense_1)
        self.convolutions = nn.ModuleList([subsampler.conv_0, subsampler.conv_1])
        self.blocks = nn.ModuleList([_Block(layer, activation) for layer in encoder.layers])
        self.norm = encoder.out_norm
        self.head = _product(model.ctc_head)
        self._rotary = encoder.rotary_emb
        self._rotations: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def device(self) -> torch.device:
        return self.norm.weight.device

    def prepare(self, device: torch.device, dtype: torch.dtype) -> FastLasr:
        """Moves, casts, and packs for the device; call once."""
        self.to(device, dtype).eval().requires_grad_(False)
        if device.type == "cpu" and torch.backends.mkldnn.is_available():
            for module in self.modules():
                if isinstance(module, _Product):
                    module.pack()
        return self

    def forward(self, features: torch.Tensor, feature_frames: torch.Tensor | None = None) -> torch.Tensor:
        """``feature_frames`` ``(batch,)``: how many feature frames of each window are no padding; None when all are."""
        x = self.dense_0(features).transpose(1, 2)
        for convolution in self.convolutions:
            x = functional.relu(convolution(x))
        x = self.dense_1(x.transpose(1, 2))
        mask = None
        if feature_frames is not None:
            for _ in self.convolutions:
                feature_frames = (feature_frames - self._kernel) // self._stride + 1
            mask = torch.arange(x.shape[1], device=x.device) < feature_frames[:, None]
        rotation = self._rotation(x)
        for block in self.blocks:
            x = block(x, rotation, mask)
        logits: torch.Tensor = self.head(self.norm(x))
        return logits

    def _rotation(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines, and sines with the sign of ``rotate_half``, ``(frames, head_size)``, in the dtype of ``x``."""
        frames = x.shape[1]
        if frames not in self._rotations:
            cos, sin = self._rotary(x, torch.arange(frames, device=x.device)[None])
            half = sin.shape[-1] // 2
            sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
            self._rotations[frames] = cos[0], sin[0]
        return self._rotations[frames]


def _attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Scaled dot-product attention over ``(batch, heads, frames, head_size)``; ``mask`` ``(batch, frames)`` leaves out keys.

    PyTorch's CPU kernel multiplies bfloat16 slower than float32, oneDNN four times faster: there the three steps are taken
    one by one. Their scores, ``frames²`` a head and window, are 16 MB for four windows of 20 s.
    """
    if queries.device.type != "cpu" or queries.dtype != torch.bfloat16:
        keys_left = None if mask is None else mask[:, None, None, :]
        return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=keys_left, scale=scale)
    scores = torch.matmul(queries, keys.transpose(2, 3)).mul_(scale)
    if mask is not None:
        scores.masked_fill_(~mask[:, None, None, :], float("-inf"))
    return torch.matmul(scores.softmax(-1), values)


def _product(layer: Any, activation: str = "none", scale: float = 1.0) -> _Product:
    """Of a Linear, or of a convolution that sees one frame; ``scale`` goes into the weights."""
    weight = layer.weight[:, :, 0] if layer.weight.dim() == 3 else layer.weight
    bias = None if layer.bias is None else layer.bias * scale
    return _Product(weight * scale if scale != 1.0 else weight, bias, activation)
