"""CTC models of Hugging Face: the numbers that transformers gives, alone or in a batch, and clear words about bad folders."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LasrForCTC,
    LasrProcessor,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForCTC,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)

from dictalake.acoustic.checkpoint import find_checkpoint, find_folder, hash_folder, locate_lm
from dictalake.acoustic.ctc import CtcModel, choose_device, choose_dtype
from dictalake.acoustic.fusion import fuse_windows
from dictalake.acoustic.model import open_model
from dictalake.acoustic.sparse import sparsify
from dictalake.acoustic.sparse_on_device import DeviceSparsifier, FrameSpan
from dictalake.acoustic.weights import load_checkpoint
from dictalake.acoustic.window_output import PruneConfig
from dictalake.acoustic.windows import cut_window, plan_windows
from dictalake.config.sections import Acoustic, Config
from dictalake.decoding.greedy import GreedyDecoder
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from dictalake.records import Emissions, FrameGrid
from dictalake.workflow.identity import read_vocabulary
from tests.engine_models import save_random_parakeet
from tests.recordings import make_sound

BLANK = 0


def make_waveform(seconds: float, seed: int) -> np.ndarray:
    return np.rint(make_sound(seconds, seed) * 32_767).astype(np.int16)


def load(folder: Path, **changes: Any) -> CtcModel:
    return CtcModel.load(Acoustic.model_validate({"model": str(folder), "device": "cpu", "dtype": "float32", **changes}))


@pytest.fixture(scope="module")
def lasr(random_lasr: Path) -> CtcModel:
    return load(random_lasr)


@pytest.fixture(scope="module")
def vocabulary(random_lasr: Path) -> Vocabulary:
    tokenizer = LasrProcessor.from_pretrained(random_lasr).tokenizer
    return Vocabulary.from_tokenizer(tokenizer, model_vocabulary_size=64, blank_id=BLANK)


def hear(model: CtcModel, waveform: np.ndarray) -> Emissions:
    """As the pipeline does it: windows, model, fusion, compaction."""
    windows = plan_windows(len(waveform), model.grid, 20.0, 2.0)
    emitted = model.emit([cut_window(waveform, window) for window in windows])
    return sparsify(fuse_windows(emitted, windows, model.grid), -5.5, 0.999, BLANK)


# What transformers says


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.37, 11.0])
def test_greedy_tokens_are_those_of_transformers_own_path(
    lasr: CtcModel, vocabulary: Vocabulary, random_lasr: Path, seconds: float
) -> None:
    waveform = make_waveform(seconds, seed=7)
    processor = LasrProcessor.from_pretrained(random_lasr)
    model = LasrForCTC.from_pretrained(random_lasr, dtype=torch.float32).eval()
    inputs = processor(waveform / np.float32(32768), sampling_rate=16_000, return_tensors="pt")
    path = model.generate(**inputs)[0].tolist()
    collapsed = [token for token, before in zip(path, [None, *path], strict=False) if token != before and token != BLANK]

    (hypothesis,) = GreedyDecoder(vocabulary).decode(hear(lasr, waveform))
    assert [piece.token_id for piece in hypothesis.pieces] == collapsed
    # The tokenizer merges repeats and drops blanks itself; its text has the pieces' spaces.
    text = processor.tokenizer.decode(path, skip_special_tokens=True)
    assert " ".join(text.split()) == vocabulary.text_of(piece.text for piece in hypothesis.pieces)
    assert len(collapsed) >= 2


def test_log_probabilities_are_those_of_transformers(lasr: CtcModel, random_lasr: Path) -> None:
    """Padding to a round length behind a mask changes nothing: 1.3 s are padded to 2 s here, and not there."""
    waveform = make_waveform(1.3, seed=3)
    processor = LasrProcessor.from_pretrained(random_lasr)
    inputs = processor(waveform / np.float32(32768), sampling_rate=16_000, return_tensors="pt")
    model = LasrForCTC.from_pretrained(random_lasr, dtype=torch.float32).eval()
    with torch.inference_mode():
        wanted = model(input_features=inputs["input_features"]).logits[0].log_softmax(-1).numpy()
    (got,) = lasr.emit([waveform])
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got[wanted > -20], wanted[wanted > -20], atol=0.02)


def test_lasr_sees_2320_samples_every_640(lasr: CtcModel) -> None:
    assert lasr.grid == FrameGrid(step=640, receptive=2320)
    windows = [make_waveform(1.0, 0)[:samples] for samples in (2320, 2959, 2960, 16_000)]
    emitted = lasr.emit(windows)
    assert [len(matrix) for matrix in emitted] == [1, 1, 2, 22]
    assert all(matrix.dtype == np.float32 for matrix in emitted)
    for matrix in emitted:
        np.testing.assert_allclose(np.exp(matrix.astype(np.float64)).sum(axis=1), 1.0, atol=1e-4)


def test_what_a_window_is_padded_to_does_not_matter(lasr: CtcModel, random_lasr: Path) -> None:
    """15,000 samples go through padded to a second and masked; so they do by transformers' own path without any padding."""
    waveform = make_waveform(2.0, seed=5)[:15_000]
    padded = lasr.emit([waveform])[0]
    features = lasr._log_mel(torch.from_numpy(waveform)[None].float() / 32768)
    with torch.inference_mode():
        alone = LasrForCTC.from_pretrained(random_lasr)(input_features=features).logits[0].log_softmax(-1).numpy()
    assert len(padded) == len(alone) == lasr.grid.frames_of(15_000)
    np.testing.assert_allclose(padded[alone > -10], alone[alone > -10], atol=2e-3)


# Batches


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_window_gives_the_same_in_any_company(random_lasr: Path, dtype: str) -> None:
    windows = [make_waveform(seconds, seed) for seed, seconds in enumerate((20.0, 0.2, 20.0, 19.5, 7.3, 1.3, 0.145, 7.9, 8.0))]
    model = load(random_lasr, dtype=dtype)
    alone = [model.emit([window])[0] for window in windows]
    for model.batch_s in (40.0, 1000.0):
        for got, wanted in zip(model.emit(windows), alone, strict=True):
            assert (got.argmax(axis=1) == wanted.argmax(axis=1)).all()
            np.testing.assert_allclose(got[wanted > -10], wanted[wanted > -10], atol=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batches_side_by_side_give_what_one_after_the_other_gives(random_lasr: Path, dtype: str) -> None:
    windows = [make_waveform(seconds, seed) for seed, seconds in enumerate((4.0,) * 9 + (0.2, 3.5, 7.3, 1.3, 0.145))]
    before = torch.get_num_threads()
    one, two, three = (CtcModel(*load_checkpoint(random_lasr), "cpu", dtype, 24.0, lanes) for lanes in (1, 2, 3))
    wanted = one.emit(windows)
    for _ in range(3):
        for got, other, usual in zip(three.emit(windows), two.emit(windows), wanted, strict=True):
            np.testing.assert_allclose(got, other, rtol=1e-5 if dtype == "float32" else 2e-2, atol=1e-4)
            assert (got.argmax(axis=1) == usual.argmax(axis=1)).all()
            np.testing.assert_allclose(got[usual > -10], usual[usual > -10], atol=0.01)
    assert torch.get_num_threads() == before
    assert three.emit([]) == []


def test_lanes_share_the_seconds_of_a_batch_and_each_gets_some(random_lasr: Path) -> None:
    model = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 90.0, lanes=2)
    assert [len(indices) for _, indices in model.batches([320_000] * 7)] == [2, 2, 2, 1]
    assert [len(indices) for _, indices in model.batches([16_000] * 8)] == [4, 4]


def test_a_lane_that_fails_fails_the_call_and_the_next_call_works(random_lasr: Path) -> None:
    model = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 8.0, lanes=2)
    windows = [make_waveform(4.0, seed) for seed in range(6)]
    with pytest.raises((TypeError, ValueError)):
        model.emit([*windows[:3], "no waveform of the same length".ljust(64_000), *windows[3:]])  # type: ignore[list-item]
    assert [len(matrix) for matrix in model.emit(windows)] == [97] * 6


def test_batches_stay_below_the_asked_seconds(random_lasr: Path) -> None:
    model = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", batch_s=45.0)
    lengths = [320_000] * 5 + [1_000] * 3 + [48_000] * 40
    batches = list(model.batches(lengths))
    assert sorted(index for _, indices in batches for index in indices) == list(range(48))
    assert [(length, len(indices)) for length, indices in batches[:3]] == [(320_000, 2), (320_000, 2), (320_000, 1)]
    assert all(length * len(indices) <= 45 * 16_000 for length, indices in batches)
    assert all(lengths[index] <= length < lengths[index] + 16_000 for length, indices in batches for index in indices)
    assert [before >= after for (before, _), (after, _) in pairwise(batches)]


def test_no_windows_give_no_matrices(lasr: CtcModel) -> None:
    assert lasr.emit([]) == []


def test_a_window_larger_than_a_batch_goes_alone(random_lasr: Path) -> None:
    assert [len(m) for m in load(random_lasr, batch_s=1.0).emit([make_waveform(3.0, 1), make_waveform(3.0, 2)])] == [72, 72]


# Recordings of all lengths


def test_a_twentieth_of_a_second_is_one_frame(lasr: CtcModel, vocabulary: Vocabulary) -> None:
    emissions = hear(lasr, make_waveform(0.05, seed=1))
    assert emissions.frames == 1
    assert len(GreedyDecoder(vocabulary).decode(emissions)) == 1


def test_a_long_recording_has_as_many_frames_as_one_long_window(lasr: CtcModel) -> None:
    waveform = make_waveform(50.0, seed=9)
    assert hear(lasr, waveform).frames == lasr.grid.frames_of(len(waveform)) == 1247


# Other architectures


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


# Folders


def test_open_model_takes_the_kind(random_lasr: Path) -> None:
    model = open_model(Acoustic.model_validate({"model": str(random_lasr), "device": "cpu", "dtype": "float32"}), 20.0)
    assert (model.device, model.dtype, model.grid.step) == ("cpu", "float32", 640)


def test_devices_and_types_are_chosen_by_what_is_there() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_dtype("float32", "cpu") == "float32"
    assert choose_dtype("auto", "cpu") in ("float32", "bfloat16")
    if not torch.cuda.is_available():
        assert choose_device("auto") == "cpu"
        with pytest.raises(ConfigError, match=r"^acoustic\.device = cuda, but PyTorch sees no GPU here; use cpu or auto"):
            choose_device("cuda")


def copy(folder: Path, target: Path, without: str) -> Acoustic:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(without))
    return Acoustic.model_validate({"model": str(target), "device": "cpu"})


def test_folders_that_hold_no_model_are_refused_in_one_line(random_lasr: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^acoustic\.model = \./nowhere/at/all: no such folder, and not a Hugging Face id"):
        find_folder(Acoustic.model_validate({"model": "./nowhere/at/all"}))
    with pytest.raises(
        ConfigError, match=r"^acoustic\.model = .*: no config\.json in it; expected a Hugging Face checkpoint folder$"
    ):
        find_folder(copy(random_lasr, tmp_path / "a", "config.json"))
    pickled = copy(random_lasr, tmp_path / "b", "*.safetensors")
    (tmp_path / "b" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(
        ConfigError, match=r"^acoustic\.model = .*: no model\.safetensors in it; other weight formats are refused$"
    ):
        find_folder(pickled)


@pytest.mark.parametrize("damage", ["weights", "type", "extractor"])
def test_models_that_do_not_load_are_refused_in_one_line(random_lasr: Path, tmp_path: Path, damage: str) -> None:
    acoustic = copy(random_lasr, tmp_path / "m", "nothing")
    if damage == "weights":
        (tmp_path / "m/model.safetensors").write_bytes(b"not safe at all, and not tensors")
    elif damage == "type":
        (tmp_path / "m/config.json").write_text('{"model_type": "gpt9"}')
    else:
        for name in ("preprocessor_config.json", "processor_config.json"):
            (tmp_path / "m" / name).unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"^acoustic\.model: m does not load as a Hugging Face CTC model: [^\n]+$"):
        CtcModel.load(acoustic)


@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_missing_are_not_made_up(random_lasr: Path, tmp_path: Path) -> None:
    acoustic = copy(random_lasr, tmp_path / "m", "nothing")
    weights = load_file(tmp_path / "m/model.safetensors")
    save_file(
        {name: w for name, w in weights.items() if "ctc_head" not in name}, tmp_path / "m/model.safetensors", {"format": "pt"}
    )
    message = r"^acoustic\.model: m lacks 2 weights of a CTC model, the first is ctc_head\.bias; a model that was never trained"
    with pytest.raises(ConfigError, match=message):
        CtcModel.load(acoustic)


def test_a_checkpoint_is_named_by_its_bytes(random_lasr: Path, tmp_path: Path) -> None:
    acoustic = copy(random_lasr, tmp_path / "m", "nothing")
    identity = find_checkpoint(acoustic).identity
    assert (identity.model_id, identity.revision) == (str(tmp_path / "m"), None)
    assert identity.sha256 == hash_folder(random_lasr)
    (tmp_path / "m/README.md").write_text("a word about it")
    assert hash_folder(tmp_path / "m") == identity.sha256
    tokenizer = tmp_path / "m/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert hash_folder(tmp_path / "m") != identity.sha256


def test_a_language_model_may_lie_in_the_models_folder(random_lasr: Path, tmp_path: Path) -> None:
    copy(random_lasr, tmp_path / "m", "nothing")
    config = Config.model_validate({"acoustic": {"model": str(tmp_path / "m")}, "decoding": {"lm": "model:lm_6.kenlm"}})
    with pytest.raises(ConfigError, match=r"^decoding\.lm = model:lm_6\.kenlm: .* holds no such file; give its path, or null"):
        locate_lm(config)
    (tmp_path / "m/lm_6.kenlm").touch()
    assert locate_lm(config).decoding.lm == str(tmp_path / "m/lm_6.kenlm")
    greedy = config.model_copy(update={"decoding": config.decoding.model_copy(update={"kind": "greedy"})})
    assert locate_lm(greedy) is greedy


# A device without memory for a batch


class SmallDevice(CtcModel):
    """Has memory for ``most`` windows at once; counts what it was asked for."""

    most = 3
    asked: list[int]

    def _start(self, asked: list[tuple[np.ndarray, FrameSpan]], length: int, pruning: PruneConfig) -> DeviceSparsifier:
        self.asked.append(len(asked))
        if len(asked) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super()._start(asked, length, pruning)


def test_the_next_batch_is_with_the_device_before_the_last_one_is_read(
    random_lasr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = [make_waveform(1.0, seed) for seed in range(6)]
    model, order = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 2.0), []
    expected = [model.emit([window])[0] for window in windows]
    start, read = CtcModel._start, DeviceSparsifier.read
    monkeypatch.setattr(CtcModel, "_start", lambda *given: (order.append("start"), start(*given))[1])
    monkeypatch.setattr(DeviceSparsifier, "read", lambda selection: (order.append("read"), read(selection))[1])
    emitted = model.emit(windows)
    assert order == ["start", "start", "read", "start", "read", "read"]
    assert all(np.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(emitted, expected, strict=True))


def test_a_batch_that_does_not_fit_the_device_is_halved_and_stays_so(random_lasr: Path) -> None:
    windows = [make_waveform(1.0, seed) for seed in range(10)]
    expected = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 10.0).emit(windows)
    small = SmallDevice(*load_checkpoint(random_lasr), "cpu", "float32", 10.0)
    small.asked = []
    emitted = small.emit(windows)
    assert all(np.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(emitted, expected, strict=True))
    assert small.asked == [10, 5, 3, 2, 5, 3, 2]
    small.asked.clear()
    small.emit(windows)
    assert small.asked == [3, 3, 3, 1]


def test_lanes_that_run_out_of_memory_halve_their_batches_too(random_lasr: Path) -> None:
    windows = [make_waveform(1.0, seed) for seed in range(16)]
    expected = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 16.0).emit(windows)
    small = SmallDevice(*load_checkpoint(random_lasr), "cpu", "float32", 16.0, lanes=2)
    small.asked = []
    emitted = small.emit(windows)
    assert all(np.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(emitted, expected, strict=True))
    assert max(small.asked) == 8
    small.asked.clear()
    small.emit(windows)
    assert max(small.asked) <= 3


def test_a_window_that_does_not_fit_by_itself_is_an_error_of_its_recording(random_lasr: Path) -> None:
    small = SmallDevice.load(Acoustic.model_validate({"model": str(random_lasr), "device": "cpu", "dtype": "float32"}))
    small.asked, small.most = [], 0
    with pytest.raises(torch.OutOfMemoryError):
        small.emit([make_waveform(1.0, seed=1)])
    assert small.is_usable()
