"""LASR's CTC model (MedASR's architecture) for inference.

It has the weights and the arithmetic of ``transformers.LasrForCTC`` in fewer and larger steps. It takes the tensors of a
checkpoint and does not need that class. The differences (``infra/benchmarks/notes.md`` has the figures):

- activations stay ``(batch, frames, channels)``: the pointwise convolutions are matrix products, nothing is transposed;
- BatchNorm is folded into the depthwise convolution, residual weights into the layers before them, in float32;
- queries, keys and values are one product, and are rotated together;
- the head computes in float32, whatever the encoder's dtype is;
- on CPUs the weights are packed once for oneDNN where that is the faster way (``fastest_way``).

Attention has no mask when all windows are full; else it covers the frames that a mask leaves, as in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dictalake.acoustic import onednn
from dictalake.acoustic.device import one_thread_each
from dictalake.acoustic.fastest_way import Way, can_pack, choose_way
from dictalake.errors import ConfigError

_NORMS = ("norm_feed_forward1", "norm_self_att", "norm_conv", "norm_feed_forward2", "norm_out")
_BATCH_NORM_EPS = 1e-5  # PyTorch's; the configuration has none


class _Product(nn.Module):
    """``activation(x @ weight.T + bias)``."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, activation: str = "none") -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self._fused, self._activation = onednn.ACTIVATIONS[activation]
        self._packed: torch.Tensor | None = None

    @property
    def is_packed(self) -> bool:
        return self._packed is not None

    def pack(self) -> None:
        """Packs the weight for oneDNN and keeps only the packed form."""
        self._packed = onednn.pack_weight(self.weight)
        self.weight = self.weight.new_empty(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._packed is None:
            return self._activation(functional.linear(x, self.weight, self.bias))
        return onednn.multiply(x, self._packed, self.bias, self._fused)


class _Convolution(nn.Module):
    """A convolution of the subsampler, then ReLU: ``(batch, channels, frames)`` → the same with fewer frames."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, tensors: Mapping[str, torch.Tensor], name: str, stride: int) -> None:
        super().__init__()
        self.register_buffer("weight", tensors[f"{name}.weight"])
        self.register_buffer("bias", tensors[f"{name}.bias"])
        self._stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(functional.conv1d(x, self.weight, self.bias, self._stride))


class _Norm(nn.Module):
    """LayerNorm without a bias."""

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self._eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, None, self._eps)


class _Rotary(nn.Module):
    """Rotary positions of the type ``default``, as transformers has them."""

    inverse_frequencies: torch.Tensor

    def __init__(self, base: float, size: int) -> None:
        super().__init__()
        self.register_buffer("inverse_frequencies", 1.0 / (base ** (torch.arange(0, size, 2, dtype=torch.float) / size)))

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines ``(1, frames, head_size)`` for ``positions`` ``(1, frames)``, computed in float32."""
        angles = positions[..., None].float() * self.inverse_frequencies.to(device=x.device, dtype=torch.float)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


class _Block(nn.Module):
    """One Conformer block."""

    depthwise: torch.Tensor
    shift: torch.Tensor

    def __init__(self, tensors: Mapping[str, torch.Tensor], encoder: Any) -> None:
        """``tensors`` have their names within the block."""
        super().__init__()
        activation = encoder.hidden_act
        self._activation = onednn.ACTIVATIONS[activation][1]
        self._heads, self._scale = encoder.num_attention_heads, _head_size(encoder) ** -0.5
        self.norms = nn.ModuleList([_Norm(tensors[f"{name}.weight"], encoder.layer_norm_eps) for name in _NORMS])
        (self._keep_ff, add_ff), (self._keep_conv, add_conv) = (
            encoder.feed_forward_residual_weights,
            encoder.conv_residual_weights,
        )
        self.feed_forwards = nn.ModuleList(
            [
                nn.Sequential(
                    _product(tensors, f"{name}.linear1", activation), _product(tensors, f"{name}.linear2", scale=add_ff)
                )
                for name in ("feed_forward1", "feed_forward2")
            ]
        )
        parts = [f"self_attn.{name}_proj" for name in "qkv"]
        biases = torch.cat([tensors[f"{part}.bias"] for part in parts]) if encoder.attention_bias else None
        self.qkv = _Product(torch.cat([tensors[f"{part}.weight"] for part in parts]), biases)
        self.output = _product(tensors, "self_attn.o_proj")
        self.pointwise1 = _product(tensors, "conv.pointwise_conv1")
        self.pointwise2 = _product(tensors, "conv.pointwise_conv2", scale=add_conv)
        gain = tensors["conv.norm.weight"] / torch.sqrt(tensors["conv.norm.running_var"] + _BATCH_NORM_EPS)
        bias = tensors.get("conv.depthwise_conv.bias", 0.0)
        self.register_buffer("depthwise", (tensors["conv.depthwise_conv.weight"] * gain[:, None, None])[:, :, None, :])
        self.register_buffer("shift", tensors["conv.norm.bias"] + (bias - tensors["conv.norm.running_mean"]) * gain)
        kernel = self.depthwise.shape[-1]
        self._padding = ((kernel - 1) // 2, kernel - 1 - (kernel - 1) // 2)  # as padding="same" does it

    def forward(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        # Not torch.add(…, alpha=…): it rounds the last few numbers of a thread's share differently, so a window's output
        # would depend on the size of its batch.
        x = self.feed_forwards[0](self.norms[0](x)).add_(x * self._keep_ff)
        x = x + self._attend(self.norms[1](x), rotation, mask)
        x = self._convolve(self.norms[2](x), mask).add_(x * self._keep_conv)
        x = self.feed_forwards[1](self.norms[3](x)).add_(x * self._keep_ff)
        normed: torch.Tensor = self.norms[4](x)
        return normed

    def _attend(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        batch, frames, _ = x.shape
        qkv = self.qkv(x).view(batch, frames, 3, self._heads, -1).permute(2, 0, 3, 1, 4).contiguous()
        cos, sin = rotation
        turned = qkv[:2].roll(cos.shape[-1] // 2, -1).mul_(sin)
        queries, keys = turned.add_(qkv[:2].mul(cos)).unbind()
        attended = _attention(queries, keys, qkv[2], mask, self._scale)
        out: torch.Tensor = self.output(attended.transpose(1, 2).reshape(batch, frames, -1))
        return out

    def _convolve(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x = functional.glu(self.pointwise1(x), dim=-1)
        if mask is not None:
            x = x.masked_fill(~mask[:, :, None], 0.0)
        # (batch, channels, 1, frames) without a copy: the layout that oneDNN and cuDNN call channels-last
        x = functional.pad(x, (0, 0, *self._padding)).transpose(1, 2)[:, :, None, :]
        x = functional.conv2d(x, self.depthwise, self.shift, groups=self.depthwise.shape[0])
        out: torch.Tensor = self.pointwise2(self._activation(x)[:, :, 0, :].transpose(1, 2))
        return out


class FastLasr(nn.Module):
    """Features ``(batch, feature_frames, mel_bands)`` → logits ``(batch, frames, vocabulary)``."""

    def __init__(self, config: Any, tensors: Mapping[str, torch.Tensor], rotary: nn.Module | None = None) -> None:
        """``config`` has the attributes of ``transformers.LasrCTCConfig``, or of ``files.read_lasr_model``.

        ``tensors`` are in float32 and include those of ``tensor_shapes``; tensors that need no change are not copied.

        ``rotary`` is transformers' module for ``config``, needed if ``rope_type`` is not ``default``. Raises ConfigError for
        what LASR checkpoints do not have: other activations, and fewer heads for keys than for queries.
        """
        super().__init__()
        self.config = config
        encoder: Any = config.encoder_config
        _require_supported(encoder)
        tensors = {name: tensors[name] for name in tensor_shapes(config)}
        self._kernel, self._stride = encoder.subsampling_conv_kernel_size, encoder.subsampling_conv_stride
        subsampler, layers = _below(tensors, "encoder.subsampler"), range(encoder.num_hidden_layers)
        self.dense_0, self.dense_1 = _product(subsampler, "dense_0", "relu"), _product(subsampler, "dense_1")
        self.convolutions = nn.ModuleList([_Convolution(subsampler, name, self._stride) for name in ("conv_0", "conv_1")])
        self.blocks = nn.ModuleList([_Block(_below(tensors, f"encoder.layers.{layer}"), encoder) for layer in layers])
        self.norm = _Norm(tensors["encoder.out_norm.weight"], encoder.layer_norm_eps)
        self.head = _product(tensors, "ctc_head")
        self._rotary = rotary or _Rotary(encoder.rope_parameters["rope_theta"], _head_size(encoder))
        self._rotations: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def device(self) -> torch.device:
        return self.norm.weight.device

    @property
    def is_packed(self) -> bool:
        """Whether weights are packed for oneDNN; PyTorch's compiler does not take such weights."""
        return self.head.is_packed

    def choose_way(self, dtype: torch.dtype, threads: int) -> Way:
        """The fastest way to compute this model on a CPU."""
        encoder: Any = self.config.encoder_config
        return choose_way(encoder.hidden_size, encoder.intermediate_size, dtype, threads)

    @one_thread_each()  # its steps are small: on a busy machine, waiting for a second thread takes a second
    def prepare(self, device: torch.device, dtype: torch.dtype, packs: bool = True) -> FastLasr:
        """Moves, casts and, if ``packs``, packs for a CPU that can use packed weights; call it once.

        The head stays in float32. Rounded to bfloat16, several tokens of a frame would have exactly the same probability, and
        a beam search would choose among them by their order. The frequencies of the positions stay in float32 too, else
        positions 100 frames apart would be rotated by up to 0.04 more or less than MedASR learned.
        """
        for part in self.children():
            part.to(device, torch.float32 if part in (self.head, self._rotary) else dtype)
        if packs and device.type == "cpu":
            for module in self.modules():
                if isinstance(module, _Product) and can_pack(module.weight.dtype):
                    module.pack()
        return self

    def forward(self, features: torch.Tensor, feature_frames: torch.Tensor | None = None) -> torch.Tensor:
        """``feature_frames`` ``(batch,)`` counts the feature frames of each window before its padding; None: no padding."""
        x = self.dense_0(features).transpose(1, 2)
        for convolution in self.convolutions:
            x = convolution(x)
        x = self.dense_1(x.transpose(1, 2))
        mask = None
        if feature_frames is not None:
            for _ in self.convolutions:
                feature_frames = (feature_frames - self._kernel) // self._stride + 1
            mask = torch.arange(x.shape[1], device=x.device) < feature_frames[:, None]
        rotation = self._rotation(x)
        for block in self.blocks:
            x = block(x, rotation, mask)
        logits: torch.Tensor = self.head(self.norm(x).float())
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

    PyTorch's CPU kernel multiplies bfloat16 slower than float32, and oneDNN four times faster than that kernel. So on CPUs the
    three steps are separate. Their scores, ``frames²`` for each head and window, take 16 MB for four windows of 20 s.
    """
    if queries.device.type != "cpu" or queries.dtype != torch.bfloat16:
        keys_left = None if mask is None else mask[:, None, None, :]
        return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=keys_left, scale=scale)
    scores = torch.matmul(queries, keys.transpose(2, 3)).mul_(scale)
    if mask is not None:
        scores.masked_fill_(~mask[:, None, None, :], float("-inf"))
    return torch.matmul(scores.softmax(-1), values)


def tensor_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes, as in transformers, of the checkpoint's tensors that inference needs."""
    encoder: Any = config.encoder_config
    width, inner, channels = encoder.hidden_size, encoder.intermediate_size, encoder.subsampling_conv_channels
    kernel, heads = encoder.subsampling_conv_kernel_size, encoder.num_attention_heads * _head_size(encoder)
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, *shape: int, bias: bool) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    add("encoder.subsampler.dense_0", width, encoder.num_mel_bins, bias=True)
    add("encoder.subsampler.conv_0", width, width, kernel, bias=True)
    add("encoder.subsampler.conv_1", channels, width, kernel, bias=True)
    add("encoder.subsampler.dense_1", width, channels, bias=True)
    for layer in (f"encoder.layers.{number}" for number in range(encoder.num_hidden_layers)):
        for name in ("feed_forward1", "feed_forward2"):
            add(f"{layer}.{name}.linear1", inner, width, bias=encoder.attention_bias)
            add(f"{layer}.{name}.linear2", width, inner, bias=encoder.attention_bias)
        for name in ("q_proj", "k_proj", "v_proj"):
            add(f"{layer}.self_attn.{name}", heads, width, bias=encoder.attention_bias)
        add(f"{layer}.self_attn.o_proj", width, heads, bias=encoder.attention_bias)
        add(f"{layer}.conv.pointwise_conv1", 2 * width, width, 1, bias=encoder.convolution_bias)
        add(f"{layer}.conv.depthwise_conv", width, 1, encoder.conv_kernel_size, bias=encoder.convolution_bias)
        add(f"{layer}.conv.pointwise_conv2", width, width, 1, bias=encoder.convolution_bias)
        add(f"{layer}.conv.norm", width, bias=True)
        shapes |= {f"{layer}.conv.norm.{name}": (width,) for name in ("running_mean", "running_var")}
        for name in _NORMS:
            add(f"{layer}.{name}", width, bias=False)
    add("encoder.out_norm", width, bias=False)
    add("ctc_head", config.vocab_size, width, 1, bias=True)
    return shapes


def _require_supported(encoder: Any) -> None:
    if encoder.hidden_act not in ("silu", "relu"):
        raise ConfigError(
            f"acoustic.model: hidden_act = {encoder.hidden_act} is not supported in LASR models; silu and relu are"
        )
    if encoder.num_key_value_heads != encoder.num_attention_heads:
        raise ConfigError(
            f"acoustic.model: num_key_value_heads = {encoder.num_key_value_heads} is not supported in LASR models with "
            f"num_attention_heads = {encoder.num_attention_heads}; the two must be the same"
        )


def _head_size(encoder: Any) -> int:
    size: int = getattr(encoder, "head_dim", None) or encoder.hidden_size // encoder.num_attention_heads
    return size


def _below(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The tensors of one part, under their names within it."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def _product(tensors: Mapping[str, torch.Tensor], name: str, activation: str = "none", scale: float = 1.0) -> _Product:
    """Made from a Linear layer, or from a convolution over one frame; ``scale`` is multiplied into the weights."""
    weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
    weight = weight[:, :, 0] if weight.dim() == 3 else weight
    return _Product(weight * scale if scale != 1.0 else weight, None if bias is None else bias * scale, activation)
