"""wav2vec2, Conformer and Parakeet give what transformers gives; what cannot be right is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForCTC,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.acoustic.fusion import fuse_windows
from dictalake.acoustic.windows import cut_window, plan_windows
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from dictalake.records import FrameGrid
from dictalake.workflow.identity import read_vocabulary
from tests.ctc_models import load, make_waveform
from tests.engine_models import save_random_parakeet


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_wav2vec2_goes_the_same_way(tmp_path: Path, norm: str) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 12}
    convolutions = {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    config = Wav2Vec2Config(
        **sizes, **convolutions, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer", pad_token_id=0
    )
    Wav2Vec2ForCTC(config).eval().save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer", do_normalize=True).save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text('{"<pad>": 0, "|": 1, "a": 2, "b": 3, "<unk>": 4}')
    Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")).save_pretrained(tmp_path)

    model = load(tmp_path)
    assert model.grid == FrameGrid(step=320, receptive=400)
    waveforms = [make_waveform(seconds, seed) for seed, seconds in enumerate((0.4, 2.0, 2.7, 5.0, 0.2))]
    together = model.emit(waveforms)
    processor = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)
    reference = Wav2Vec2ForCTC.from_pretrained(tmp_path).eval()
    for waveform, got in zip(waveforms, together, strict=True):
        inputs = processor(waveform / np.float32(32768), sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            wanted = reference(input_values=inputs["input_values"]).logits[0].log_softmax(-1).numpy()
        assert got.shape == wanted.shape == (model.grid.frames_of(len(waveform)), 12)
        np.testing.assert_allclose(got, wanted, atol=2e-3)


def test_wav2vec2_conformer_goes_without_padding(tmp_path: Path) -> None:
    """Its convolutions would look over the edge of a mask."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 12}
    config = Wav2Vec2ConformerConfig(**sizes, conv_dim=[16] * 7, feat_extract_norm="layer", pad_token_id=0)
    reference = Wav2Vec2ConformerForCTC(config).eval()
    reference.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=True).save_pretrained(tmp_path)
    waveforms = [make_waveform(seconds, seed) for seed, seconds in enumerate((0.4, 2.0, 2.7, 2.0))]
    for waveform, got in zip(waveforms, load(tmp_path).emit(waveforms), strict=True):
        inputs = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)(waveform / np.float32(32768), sampling_rate=16_000)
        with torch.inference_mode():
            logits = reference(input_values=torch.from_numpy(np.stack(inputs["input_values"]))).logits[0]
        np.testing.assert_allclose(got, logits.log_softmax(-1).numpy(), atol=2e-3)


def test_wav2vec2_with_an_adapter_is_refused(tmp_path: Path) -> None:
    """It halves the frames behind the convolutions."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 12}
    Wav2Vec2ForCTC(Wav2Vec2Config(**sizes, conv_dim=[16] * 7, add_adapter=True, output_hidden_size=32)).save_pretrained(
        tmp_path
    )
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"^acoustic\.model: a model with an adapter \(add_adapter: true\) is not supported"):
        load(tmp_path)


@pytest.fixture(scope="module")
def random_parakeet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_parakeet(tmp_path_factory.mktemp("models") / "random-parakeet")


def test_parakeet_gives_what_transformers_gives(random_parakeet: Path) -> None:
    """Exclusive and behind its mask there, batched and padded to whole seconds here."""
    model = load(random_parakeet)
    assert model.grid == FrameGrid(step=1280, receptive=320)
    extractor = ParakeetFeatureExtractor.from_pretrained(random_parakeet)
    reference = ParakeetForCTC.from_pretrained(random_parakeet).eval()
    waveforms = [make_waveform(seconds, seed) for seed, seconds in enumerate((0.4, 2.0, 2.08, 5.0, 0.02, 2.0, 20.0, 1.3))]
    for waveform, got in zip(waveforms, model.emit(waveforms), strict=True):
        inputs = extractor(waveform / np.float32(32768), sampling_rate=16_000, return_tensors="pt")
        frames = int(reference._get_subsampling_output_length(inputs["attention_mask"].sum(-1)))
        with torch.inference_mode():
            wanted = reference(**inputs).logits[0, :frames].log_softmax(-1).numpy()
        assert got.shape == wanted.shape == (model.grid.frames_of(len(waveform)), wanted.shape[1])
        np.testing.assert_allclose(got, wanted, atol=2e-3)


def test_parakeets_head_computes_in_float32_also_where_the_rest_is_bfloat16(random_parakeet: Path) -> None:
    waveform = make_waveform(2.0, seed=0)
    model = load(random_parakeet, dtype="bfloat16")
    assert model.dtype == "bfloat16"
    assert model.to_logits(model.to_inputs([waveform], len(waveform))).dtype == torch.float32
    (usual,) = load(random_parakeet).emit([waveform])
    np.testing.assert_allclose(np.exp(model.emit([waveform])[0]), np.exp(usual), atol=0.02)


def test_of_parakeet_a_last_frame_of_under_a_fiftieth_of_a_second_is_left_out(random_parakeet: Path) -> None:
    model = load(random_parakeet)
    emitted = model.emit([make_waveform(1.0, 0)[: 1280 + rest] for rest in (0, 160, 319, 320)])
    assert [len(matrix) for matrix in emitted] == [1, 1, 1, 2]
    assert all(np.isfinite(matrix).all() for matrix in emitted)


def test_parakeets_blank_is_the_last_of_its_entries(random_parakeet: Path) -> None:
    vocabulary, grid = read_vocabulary(find_checkpoint(Acoustic.model_validate({"model": str(random_parakeet)})))
    model = load(random_parakeet)
    assert grid == model.grid
    assert vocabulary.blank_id == len(vocabulary.pieces) - 1 == model.emit([make_waveform(1.0, 0)])[0].shape[1] - 1
    assert vocabulary.text_of(["▁no", "▁effusion", vocabulary.pieces[vocabulary.blank_id]]) == "no effusion"


def test_parakeet_has_one_frame_grid_over_all_windows(random_parakeet: Path) -> None:
    model, waveform = load(random_parakeet), make_waveform(50.0, seed=9)
    windows = plan_windows(len(waveform), model.grid, 20.0, 2.0)
    fused = fuse_windows(model.emit([cut_window(waveform, window) for window in windows]), windows, model.grid)
    assert (len(windows), len(fused)) == (3, model.grid.frames_of(len(waveform))) == (3, 625)
