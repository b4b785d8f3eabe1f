"""LASR arranged for inference gives what transformers gives, with and without padding, biases and trained norms."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import LasrCTCConfig, LasrEncoderConfig, LasrForCTC

from dictalake.acoustic.lasr.model import FastLasr, tensor_shapes
from dictalake.errors import ConfigError

CPU = torch.device("cpu")
BANDS, FRAMES = 128, 298


def make_model(
    *, biases: bool = False, kernel: int = 32, activation: str = "silu", residuals: tuple[float, float] = (1.5, 0.5)
) -> LasrForCTC:
    """Random weights everywhere, also in the norms, whose defaults (0 and 1) would hide what is folded into what."""
    torch.manual_seed(0)
    encoder = LasrEncoderConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        intermediate_size=96,
        subsampling_conv_channels=32,
        conv_kernel_size=kernel,
        attention_bias=biases,
        convolution_bias=biases,
        hidden_act=activation,
        feed_forward_residual_weights=list(residuals),
    )
    model = LasrForCTC(LasrCTCConfig(vocab_size=40, pad_token_id=0, encoder_config=encoder)).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var"):
                tensor.uniform_(0.3, 3.0)
            elif "norm" in name and name.endswith("weight"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0.0, 0.3)
            elif name.endswith("weight"):
                tensor.normal_(0.0, 0.15)
    return model


def make_fast(model: LasrForCTC) -> FastLasr:
    return FastLasr(model.config, model.state_dict())


def make_features(windows: int) -> torch.Tensor:
    return torch.randn(windows, FRAMES, BANDS, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("changes", [{}, {"biases": True}, {"kernel": 31}, {"activation": "relu"}, {"residuals": (0.7, 1.3)}])
@torch.inference_mode()
def test_logits_are_those_of_transformers(changes: dict[str, object]) -> None:
    model, features = make_model(**changes), make_features(3)  # type: ignore[arg-type]
    expected = model(input_features=features).logits
    fast = make_fast(model).prepare(CPU, torch.float32)
    torch.testing.assert_close(fast(features), expected, atol=2e-4, rtol=1e-4)
    assert expected.std() > 0.5


@torch.inference_mode()
def test_padding_counts_for_nothing_as_in_transformers() -> None:
    model, features = make_model(), make_features(3)
    frames = torch.tensor([FRAMES, 200, 16])
    mask = torch.arange(FRAMES) < frames[:, None]
    expected = model(input_features=features, attention_mask=mask).logits
    got = make_fast(model).prepare(CPU, torch.float32)(features, frames)
    for row, kept in enumerate((72, 47, 1)):
        torch.testing.assert_close(got[row, :kept], expected[row, :kept], atol=2e-4, rtol=1e-4)
    assert not torch.allclose(expected[1, :47], model(input_features=features).logits[1, :47], atol=1e-2)


@pytest.mark.parametrize("masked", [False, True])
@torch.inference_mode()
def test_bfloat16_is_no_farther_from_float32_than_transformers_bfloat16(masked: bool) -> None:
    model, features = make_model(), make_features(3)
    frames = torch.tensor([FRAMES, 250, 280]) if masked else None
    mask = {} if frames is None else {"attention_mask": torch.arange(FRAMES) < frames[:, None]}
    exact = model(input_features=features, **mask).logits[:, :60]
    theirs = copy.deepcopy(model).bfloat16()(input_features=features.bfloat16(), **mask).logits[:, :60].float()
    ours = make_fast(model).prepare(CPU, torch.bfloat16)(features.bfloat16(), frames)[:, :60].float()
    assert 0 < (ours - exact).square().mean() < 1.5 * (theirs - exact).square().mean()


@torch.inference_mode()
def test_without_packed_weights_the_numbers_are_the_same() -> None:
    """As on a GPU, where nothing is packed for oneDNN."""
    model, features = make_model(biases=True), make_features(2)
    expected = model(input_features=features).logits
    torch.testing.assert_close(make_fast(model)(features), expected, atol=2e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_model_whose_tensors_it_takes_stays_as_it_was() -> None:
    model, features = make_model(biases=True), make_features(1)
    expected = model(input_features=features).logits
    make_fast(model).prepare(CPU, torch.bfloat16)
    assert torch.equal(model(input_features=features).logits, expected)


@pytest.mark.parametrize("changes", [{}, {"biases": True}, {"kernel": 31}])
def test_what_it_needs_is_what_transformers_saves(changes: dict[str, Any]) -> None:
    model = make_model(**changes)
    saved = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if "num_batches" not in name}
    assert tensor_shapes(model.config) == saved


@torch.inference_mode()
def test_positions_are_those_of_transformers_to_the_last_bit() -> None:
    model = make_model()
    for dtype in (torch.float32, torch.bfloat16):
        x, positions = torch.empty(1, 500, 48, dtype=dtype), torch.arange(500)[None]
        ours = make_fast(model).prepare(CPU, dtype)._rotary(x, positions)
        theirs = copy.deepcopy(model.encoder.rotary_emb)(x, positions)  # a checkpoint read in bfloat16 has them in float32 too
        assert all(torch.equal(mine, their) for mine, their in zip(ours, theirs, strict=True))


def test_the_head_keeps_apart_what_bfloat16_makes_equal() -> None:
    fast = make_fast(make_model()).prepare(CPU, torch.bfloat16)
    with torch.inference_mode():
        logits = fast(make_features(4).to(torch.bfloat16))
    assert logits.dtype == torch.float32

    def count_ties(logits: torch.Tensor) -> int:
        ordered = logits.sort(dim=-1).values
        return int((ordered[..., 1:] == ordered[..., :-1]).sum())

    assert count_ties(logits) == 0 < count_ties(logits.bfloat16())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden_act", "gelu", r"^acoustic\.model: hidden_act = gelu is not supported in LASR models; silu and relu are$"),
        ("hidden_act", "none", r"^acoustic\.model: hidden_act = none is not supported"),
        (
            "num_key_value_heads",
            1,
            r"^acoustic\.model: num_key_value_heads = 1 is not .* num_attention_heads = 3; the two",
        ),
    ],
)
def test_what_lasr_checkpoints_do_not_have_is_refused(key: str, value: object, message: str) -> None:
    model = make_model()
    setattr(model.config.encoder_config, key, value)
    with pytest.raises(ConfigError, match=message):
        make_fast(model)
