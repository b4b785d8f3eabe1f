"""A LASR checkpoint's small files mean what transformers says they mean, without it where they are as usual."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig, AutoFeatureExtractor, LasrTokenizer

from dictalake.acoustic.checkpoint import Checkpoint, ModelIdentity
from dictalake.acoustic.lasr.files import LasrModel, read_lasr_files, read_lasr_model
from dictalake.errors import ConfigError
from dictalake.workflow import identity
from dictalake.workflow.identity import read_vocabulary

ROOT = Path(__file__).parents[4]
EMBEDDED = ROOT / "pipelines/dictalake/assets/medasr-mini"
CONFIG, TOKENIZER, SETTINGS = "config.json", "tokenizer.json", "tokenizer_config.json"
PROCESSOR, EXTRACTOR = "processor_config.json", "preprocessor_config.json"
PARTS: list[tuple[str, ...]] = [
    (CONFIG,),
    (CONFIG, "encoder_config"),
    (CONFIG, "encoder_config", "rope_parameters"),
    (PROCESSOR,),
    (PROCESSOR, "feature_extractor"),
    (SETTINGS,),
    (TOKENIZER,),
    (TOKENIZER, "model"),
]
PIECES = [("<epsilon>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁no", -3.0), ("a", -4.0), ("b", -4.0)]
BARE = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
Change = Callable[[Path], None]


def keys_of(part: tuple[str, ...]) -> list[str]:
    document = json.loads((EMBEDDED / part[0]).read_text(encoding="utf-8"))
    for key in part[1:]:
        document = document[key]
    return list(document)


KEYS = [(*part, key) for part in PARTS for key in keys_of(part)]


@pytest.fixture
def folder(random_lasr: Path, tmp_path: Path) -> Path:
    """Without weights: neither way asks for them."""
    (tmp_path / "m").mkdir()
    for path in random_lasr.glob("*.json"):
        shutil.copy(path, tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def like_medasr(folder: Path) -> Path:
    """Its layout: a separate file for the extractor, a blank with another name, and sentinels after the head's pieces."""
    tokenizer = LasrTokenizer(
        vocab=list(PIECES), pad_token="<epsilon>", bos_token="<s>", additional_special_tokens=None, extra_ids=100
    )
    tokenizer.save_pretrained(folder)
    with edited(folder / PROCESSOR) as processor:
        (folder / EXTRACTOR).write_text(json.dumps(processor.pop("feature_extractor")), encoding="utf-8")
    put(folder, CONFIG, vocab_size=len(PIECES))
    return folder


@contextmanager
def edited(path: Path) -> Iterator[Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    yield document
    path.write_text(json.dumps(document), encoding="utf-8")


def put(folder: Path, file: str, **values: Any) -> None:
    with edited(folder / file) as document:
        document |= values


def drop(folder: Path, file: str, key: str) -> None:
    with edited(folder / file) as document:
        del document[key]


def found(way: Callable[[Checkpoint], Any], folder: Path) -> Any:
    """What ``way`` returns, or how it fails."""
    try:
        return way(Checkpoint(folder, ModelIdentity("m", None, "0")))
    except Exception as error:
        return type(error), str(error)


def assert_as_transformers_says(folder: Path) -> None:
    assert found(read_vocabulary, folder) == found(identity._ask_transformers, folder)


def assert_read_from_the_files(folder: Path) -> None:
    assert read_lasr_files(folder) is not None
    assert_as_transformers_says(folder)


def test_the_embedded_model_is_read_from_its_files() -> None:
    assert_read_from_the_files(EMBEDDED)
    vocabulary, grid = found(read_vocabulary, EMBEDDED)
    assert (len(vocabulary.pieces), vocabulary.blank_id, vocabulary.pieces[:4]) == (459, 0, ("<pad>", "</s>", "<unk>", "▁"))
    assert vocabulary.special_ids == {0, 1, 2}
    assert (grid.step, grid.receptive) == (640, 2320)


def test_a_driver_opens_the_embedded_model_without_torch_and_transformers() -> None:
    """Runs in a new process and does all that a run does before its first block."""
    script = """
import sys
import dictalake.workflow.run
from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.config.sections import Config
from dictalake.workflow.identity import identify, open_output_spec, read_vocabulary

config = Config.model_validate({"acoustic": {"model": "embedded:medasr-mini"}})
checkpoint = find_checkpoint(config.acoustic)
print(len(read_vocabulary(checkpoint)[0].pieces), len(open_output_spec(config, checkpoint)[0].pieces))
identify(config, checkpoint)
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""
    command = [sys.executable, "-c", script, "torch", "transformers", "tokenizers"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["459 459", "tokenizers"]


@pytest.mark.parametrize("columns", [1, 3, 40, 64, 65, 300])
def test_a_head_narrower_or_wider_than_the_tokenizer_gets_the_same_pieces(folder: Path, columns: int) -> None:
    put(folder, CONFIG, vocab_size=columns)
    assert_read_from_the_files(folder)
    assert len(found(read_vocabulary, folder)[0].pieces) == columns


def test_a_layout_like_that_of_medasr_is_read_from_its_files(like_medasr: Path) -> None:
    assert_read_from_the_files(like_medasr)
    vocabulary, _ = found(read_vocabulary, like_medasr)
    assert vocabulary.pieces == ("<epsilon>", "<s>", "</s>", "<unk>", "▁", "▁no", "a", "b")
    assert (vocabulary.blank_id, vocabulary.special_ids) == (0, {0, 1, 2, 3})


@pytest.mark.parametrize("columns", [len(PIECES) + 1, len(PIECES) + 100, len(PIECES) + 101])
def test_sentinels_that_the_head_emits_are_left_to_transformers(like_medasr: Path, columns: int) -> None:
    put(like_medasr, CONFIG, vocab_size=columns)
    assert read_lasr_files(like_medasr) is None
    assert_as_transformers_says(like_medasr)


@pytest.mark.parametrize("place", KEYS, ids="/".join)
def test_any_key_without_or_with_another_value_means_what_transformers_says(folder: Path, place: tuple[str, ...]) -> None:
    file, *path, key = place
    whole = (folder / file).read_text(encoding="utf-8")
    for value in ("drop", "words", -1, 0, 7, 1.5, True, None, [], ["a"], {}, {"a": 1}):
        document = json.loads(whole)
        inner = document
        for step in path:
            inner = inner[step]
        inner.pop(key, None)
        if value != "drop":
            inner[key] = value
        (folder / file).write_text(json.dumps(document), encoding="utf-8")
        # Where the files do not tell, both ways are one.
        if read_lasr_files(folder) is not None:
            assert_as_transformers_says(folder)
        if file != TOKENIZER and file != SETTINGS and (model := read_lasr_model(folder)) is not None:
            assert_same_model(folder, model)


def assert_same_model(folder: Path, model: LasrModel) -> None:
    config, extractor = AutoConfig.from_pretrained(folder), AutoFeatureExtractor.from_pretrained(folder)
    own = vars(model.config) | {"encoder_config": None}
    assert own == {name: getattr(config, name) for name in own} | {"encoder_config": None}
    encoder = vars(model.config.encoder_config)
    assert encoder == {name: getattr(config.encoder_config, name) for name in encoder}
    keys = asdict(model.front_end)
    assert keys == {name: getattr(extractor, name) for name in keys}
    assert np.array_equal(model.front_end.mel_filters, extractor.mel_filters.numpy())


def test_a_worker_reads_the_embedded_model_as_transformers_would() -> None:
    model = read_lasr_model(EMBEDDED)
    assert model is not None
    assert_same_model(EMBEDDED, model)


@pytest.mark.parametrize("key", ["hidden_size", "conv_kernel_size", "rope_parameters", "layer_norm_eps"])
def test_what_the_files_leave_to_a_default_of_transformers_is_left_to_it(folder: Path, key: str) -> None:
    with edited(folder / CONFIG) as document:
        del document["encoder_config"][key]
    assert read_lasr_model(folder) is None


@pytest.mark.parametrize("file", [CONFIG, TOKENIZER, SETTINGS, PROCESSOR])
@pytest.mark.parametrize("damage", [b"", b"[]", b"null", b'{"a": 1', b'{"\xff": 1}'])
def test_a_damaged_file_is_the_same_error(folder: Path, file: str, damage: bytes) -> None:
    (folder / file).write_bytes(damage)
    assert_as_transformers_says(folder)
    error, text = found(read_vocabulary, folder)
    assert error is ConfigError
    assert text.startswith("acoustic.model: m: its configuration, tokenizer or feature extractor cannot be read (")


@pytest.mark.parametrize("file", [CONFIG, TOKENIZER, SETTINGS, PROCESSOR])
def test_a_file_that_is_not_there_is_left_to_transformers(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert read_lasr_files(folder) is None
    assert_as_transformers_says(folder)


def added(folder: Path, *texts: str) -> None:
    """Tokens behind the model's own, in ``tokenizer.json``."""
    with edited(folder / TOKENIZER) as document:
        first = len(document["model"]["vocab"])
        document["added_tokens"] += [{"id": first + i, "content": t, **BARE, "special": True} for i, t in enumerate(texts)]


def twice(folder: Path) -> None:
    with edited(folder / TOKENIZER) as document:
        vocab = document["model"]["vocab"]
        vocab[10] = vocab[20]


def shortened(folder: Path) -> None:
    with edited(folder / TOKENIZER) as document:
        document["model"]["vocab"] = document["model"]["vocab"][:3]


def both_extractors(folder: Path) -> None:
    with edited(folder / PROCESSOR) as processor:
        (folder / EXTRACTOR).write_text(json.dumps(processor["feature_extractor"] | {"hop_length": 80}), encoding="utf-8")


def no_nested_extractor(folder: Path) -> None:
    both_extractors(folder)
    drop(folder, PROCESSOR, "feature_extractor")


def by_id(**tokens: str) -> dict[str, Any]:
    return {index.removeprefix("_"): {"content": text, **BARE, "special": True} for index, text in tokens.items()}


def write(folder: Path, name: str, document: Any) -> None:
    (folder / name).write_text(json.dumps(document), encoding="utf-8")


def three_sentinels(folder: Path) -> None:
    drop(folder, SETTINGS, "extra_special_tokens")
    put(folder, SETTINGS, extra_ids=3)


def as_many_sentinels_as_by_default(folder: Path) -> None:
    drop(folder, SETTINGS, "extra_special_tokens")
    drop(folder, SETTINGS, "extra_ids")


def unreadable_chat(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff")


def old_names(folder: Path) -> None:
    """A file that transformers reads only where the settings do not list the added tokens."""
    write(folder, "special_tokens_map.json", {"pad_token": "</s>"})


def old_names_beside_a_list(folder: Path) -> None:
    old_names(folder)
    put(folder, SETTINGS, added_tokens_decoder=by_id(_0="<pad>", _1="</s>", _2="<unk>"))


USUAL: dict[str, Change] = {
    "fast": lambda m: put(m, SETTINGS, tokenizer_class="LasrTokenizerFast"),
    "written_out": lambda m: put(m, SETTINGS, eos_token={"__type": "AddedToken", "content": "</s>", **BARE}),
    "start": lambda m: put(m, SETTINGS, bos_token="▁"),
    "no_start": lambda m: put(m, SETTINGS, bos_token=None),
    "other_names": lambda m: put(m, SETTINGS, pad_token="<unk>", unk_token="<pad>"),
    "list_of_added": lambda m: put(m, SETTINGS, added_tokens_decoder=by_id(_2="<unk>", _0="<pad>", _1="</s>")),
    "old_names_beside_a_list": old_names_beside_a_list,
    "known_extras": lambda m: put(m, SETTINGS, extra_special_tokens=["▁"], extra_ids=0),
    "both_extractors": both_extractors,
    "no_nested_extractor": no_nested_extractor,
    "other_frames": lambda m: put(m, PROCESSOR, feature_extractor=json.loads(FRAMES)),
    "piece_twice": twice,
    "other_blank": lambda m: put(m, CONFIG, pad_token_id=5),
    "blank_outside": lambda m: put(m, CONFIG, pad_token_id=64),
    "negative_blank": lambda m: put(m, CONFIG, pad_token_id=-1),
    "half_precision": lambda m: put(m, CONFIG, dtype="bfloat16"),
    "old_dtype": lambda m: put(m, CONFIG, torch_dtype="float16"),
    "token_ids": lambda m: put(m, CONFIG, bos_token_id=1, eos_token_id=None),
}
FRAMES = """{"feature_extractor_type": "LasrFeatureExtractor", "feature_size": 80, "hop_length": 200, "n_fft": 1024,
             "sampling_rate": 8000, "win_length": 500}"""


@pytest.mark.parametrize("change", USUAL.values(), ids=USUAL)
def test_what_is_usual_is_read_from_the_files(folder: Path, change: Change) -> None:
    change(folder)
    assert_read_from_the_files(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: added(m, "<a>", "<b>"),
        lambda m: put(m, SETTINGS, eos_token="<end>"),
        lambda m: put(m, SETTINGS, extra_special_tokens=["<a>"]),
        lambda m: put(m, SETTINGS, added_tokens_decoder=by_id(_70="<b>", _5="<a>")),
        three_sentinels,
        as_many_sentinels_as_by_default,
    ],
    ids=["added", "named", "extra", "listed", "sentinels", "default"],
)
def test_tokens_behind_the_pieces_count_only_for_a_head_that_emits_them(folder: Path, change: Change) -> None:
    pieces = len(json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))["model"]["vocab"])
    change(folder)
    put(folder, CONFIG, vocab_size=pieces)
    assert_read_from_the_files(folder)
    put(folder, CONFIG, vocab_size=pieces + 2)
    assert read_lasr_files(folder) is None
    assert_as_transformers_says(folder)


UNUSUAL: dict[str, Change] = {
    "token_of_another_name": lambda m: put(m, SETTINGS, sot_token="▁"),
    "no_pad": lambda m: put(m, SETTINGS, pad_token=None),
    "not_written_out": lambda m: put(m, SETTINGS, eos_token={"content": "</s>"}),
    "delimiter": lambda m: put(m, SETTINGS, word_delimiter_token="▁"),
    "other_tokenizer": lambda m: put(m, SETTINGS, tokenizer_class="T5Tokenizer"),
    "code_of_its_own": lambda m: put(m, SETTINGS, auto_map={"AutoTokenizer": [None, "a.B"]}),
    "old_names": old_names,
    "old_added": lambda m: write(m, "added_tokens.json", {"<a>": 5}),
    "sentinels_that_disagree": lambda m: put(
        m, SETTINGS, extra_ids=3, additional_special_tokens=["<extra_id_0>"], extra_special_tokens=["<a>"]
    ),
    "odd_listed": lambda m: put(m, SETTINGS, added_tokens_decoder={"0": {"content": "<pad>", "id": 0}}),
    "extra_ids_as_a_float": lambda m: put(m, SETTINGS, extra_ids=0.0),
    "too_few_pieces": shortened,
    "truncation": lambda m: put(m, TOKENIZER, truncation={"direction": "Right", "max_length": 5, "strategy": "LongestFirst"}),
    "normaliser": lambda m: put(m, TOKENIZER, normalizer={"type": "NFC"}),
    "chat": unreadable_chat,
    "other_model": lambda m: put(m, CONFIG, model_type="wav2vec2"),
    "unknown_key": lambda m: put(m, CONFIG, layer_types=["a"]),
    "quantised": lambda m: put(m, CONFIG, quantization_config={"quant_method": "x"}),
    "other_extractor": lambda m: put(m, PROCESSOR, feature_extractor={"feature_extractor_type": "Wav2Vec2FeatureExtractor"}),
    "no_extractor": lambda m: drop(m, PROCESSOR, "feature_extractor"),
    "old_extractor_key": lambda m: put(m, PROCESSOR, audio_processor={}),
}


@pytest.mark.parametrize("change", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_unusual_is_left_to_transformers(folder: Path, change: Change) -> None:
    change(folder)
    assert read_lasr_files(folder) is None
    assert_as_transformers_says(folder)
