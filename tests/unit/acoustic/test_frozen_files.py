"""The files of a run's model: looked up and hashed once, and no worker opens others."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest

from dictalake.acoustic import checkpoint as checkpoints
from dictalake.acoustic.checkpoint import find_checkpoint, find_folder, freeze_config, locate_decoding
from dictalake.acoustic.frozen_files import freeze_files, hash_one_file
from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.lake.runs import describe_config
from dictalake.workflow.identity import find_decoder_files, identify
from dictalake.workflow.stages.decode import Decode
from tests.models import write_arpa


@pytest.fixture
def folder(random_lasr: Path, tmp_path: Path) -> Path:
    """A model with a language model in it, and a list of hotwords beside it."""
    folder = Path(shutil.copytree(random_lasr, tmp_path / "model"))
    write_arpa(folder / "lm.arpa", {"a": -1.0}, {})
    (tmp_path / "hotwords.txt").write_text("warfarin\n", encoding="utf-8")
    return folder


def make_config(folder: Path) -> Config:
    decoding = {"lm": "model:lm.arpa", "hotwords": str(folder.parent / "hotwords.txt")}
    return Config.model_validate({"acoustic": {"model": str(folder)}, "decoding": decoding})


def freeze(folder: Path) -> Config:
    """As a worker gets it."""
    config = make_config(folder)
    frozen = freeze_config(config, find_checkpoint(config.acoustic), find_decoder_files(config))
    return pickle.loads(pickle.dumps(frozen))


def open_all(config: Config) -> None:
    find_folder(config.acoustic)
    locate_decoding(config)


def append_byte(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b" ")


def test_a_worker_on_the_drivers_machine_neither_looks_for_the_files_nor_reads_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = freeze(folder)
    for name in ("_look_up_folder", "hash_folder", "hash_one_file"):
        monkeypatch.setattr(checkpoints, name, None)
    assert find_folder(config.acoustic)[0] == folder
    assert locate_decoding(config).lm == str(folder / "lm.arpa")


def test_a_model_that_was_changed_since_the_run_began_is_refused(folder: Path) -> None:
    config = freeze(folder)
    append_byte(folder / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"^acoustic\.model = .*are not those that the run began with"):
        find_folder(config.acoustic)


@pytest.mark.parametrize(("name", "key"), [("model/lm.arpa", "lm"), ("hotwords.txt", "hotwords")])
def test_a_decoders_file_that_was_changed_since_the_run_began_is_refused(folder: Path, name: str, key: str) -> None:
    config = freeze(folder)
    append_byte(folder.parent / name)
    with pytest.raises(ConfigError, match=rf"^decoding\.{key} = .*are not those that the run began with"):
        locate_decoding(config)
    (folder.parent / name).unlink()
    with pytest.raises(ConfigError, match=rf"^decoding\.{key} = "):
        locate_decoding(config)


@pytest.mark.parametrize("name", ["model/tokenizer.json", "model/lm.arpa", "hotwords.txt"])
def test_a_file_that_changes_before_the_configuration_is_frozen_is_refused(folder: Path, name: str) -> None:
    config = make_config(folder)
    checkpoint, files = find_checkpoint(config.acoustic), find_decoder_files(config)
    identify(config, checkpoint, files)
    append_byte(folder.parent / name)
    frozen = freeze_config(config, checkpoint, files)
    with pytest.raises(ConfigError, match="are not those that the run began with"):
        open_all(frozen)


@pytest.mark.parametrize("name", ["model/lm.arpa", "hotwords.txt"])
def test_a_run_is_identified_by_the_hashes_that_its_workers_compare_with(folder: Path, name: str) -> None:
    config = make_config(folder)
    checkpoint, files = find_checkpoint(config.acoustic), find_decoder_files(config)
    before = identify(config, checkpoint, files).fingerprint
    with (folder.parent / name).open("ab") as file:
        file.write(b"aspirin\n")
    assert identify(config, checkpoint, files).fingerprint == before
    assert identify(config, checkpoint).fingerprint != before, "the changed file makes another run"


def test_a_file_that_changes_while_it_is_hashed_is_looked_at_again(folder: Path) -> None:
    file = folder.parent / "hotwords.txt"

    def hash_then_change(path: Path) -> str:
        found = hash_one_file(path)
        append_byte(path)
        return found

    frozen = freeze_files(file, hash_then_change)
    assert not frozen.is_unchanged()
    with pytest.raises(ConfigError, match=r"^decoding\.hotwords = "):
        frozen.find("decoding.hotwords", str(file), lambda: file, hash_one_file)


def test_the_stage_decode_opens_no_changed_file(folder: Path) -> None:
    config = freeze(folder)
    append_byte(folder / "lm.arpa")
    with pytest.raises(ConfigError, match=r"^decoding\.lm = "):
        Decode(config, None)._opened.get()  # type: ignore[arg-type]


def test_the_same_files_under_another_date_are_taken(folder: Path) -> None:
    config = freeze(folder)
    for file in (*folder.iterdir(), folder.parent / "hotwords.txt"):
        os.utime(file, (0, 0))
    assert find_folder(config.acoustic)[0] == folder
    assert locate_decoding(config).hotwords == str(folder.parent / "hotwords.txt")


def test_a_frozen_configuration_is_recorded_as_it_was_given(folder: Path) -> None:
    assert describe_config(freeze(folder)) == describe_config(make_config(folder))
