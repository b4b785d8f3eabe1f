"""The stages one after the other, without Ray: a table in, a table out, the same rows, whatever happens to one of them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.acoustic.model import AcousticModel
from dictalake.acoustic.sparse import sparsify, sparsify_stretches
from dictalake.acoustic.window_output import PruneConfig, Stretch, WindowOutput
from dictalake.archive.listing import list_recordings
from dictalake.audio.load import LOADER_VERSION
from dictalake.config.sections import Config
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from dictalake.lake.staged_files import StagedFile
from dictalake.lake.table import TranscriptTable
from dictalake.records import Emissions, FrameGrid, Recording, Word
from dictalake.transcript.provenance import Provenance, make_provenance
from dictalake.workflow import columns
from dictalake.workflow.identity import read_vocabulary
from dictalake.workflow.stages import emit
from dictalake.workflow.stages.assemble import Assemble, RowAssembler
from dictalake.workflow.stages.base import DeferredResource
from dictalake.workflow.stages.decode import Decode
from dictalake.workflow.stages.emit import Emit
from dictalake.workflow.stages.load import Load
from tests.recordings import MIXED_ARCHIVE, make_config, make_sound, name_of, read_rows, write_mixed_archive, write_wav

LASR = FrameGrid(step=640, receptive=2320)


@pytest.fixture(scope="module")
def vocabulary(random_lasr: Path) -> Vocabulary:
    from transformers import AutoTokenizer

    return Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(random_lasr), 64, 0)


def provenance_of(config: Config) -> Provenance:
    identity = find_checkpoint(config.acoustic).identity
    return make_provenance(config, "r1", model_id="m", model_revision=None, model_sha256=identity.sha256, decoder="greedy")


def test_a_damaged_tokenizer_is_one_clear_error(random_lasr: Path, tmp_path: Path) -> None:
    model = shutil.copytree(random_lasr, tmp_path / "model")
    (model / "tokenizer.json").write_text('{"added_tokens": [{"id": 0}]}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^acoustic\.model: model: its configuration, tokenizer .* cannot be read \(\w+\)"):
        read_vocabulary(find_checkpoint(make_config(model).acoustic))


def load(config: Config) -> pa.Table:
    return pa.concat_tables(Load(config)(columns.recordings_to_table(list(list_recordings(config.archive)))))


def errors(table: pa.Table) -> list[str | None]:
    return [error and error["reason"] for error in table["error"].to_pylist()]


def test_a_block_goes_through_all_stages_row_by_row(random_lasr: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    config = make_config(random_lasr, tmp_path / "lake", archive={"uri": str(write_mixed_archive(tmp_path / "archive"))})
    loaded = load(config)
    emitted = Emit(config, vocabulary, threads=1)(loaded)
    decoded = Decode(config, vocabulary)(emitted)
    report = Assemble(config, provenance_of(config), LASR)(decoded)
    for table in (emitted, decoded):
        assert table["recording_id"].to_pylist() == loaded["recording_id"].to_pylist()
    assert "waveforms" not in emitted.column_names
    assert "emissions" not in decoded.column_names
    assert sum(len(row["recording_ids"]) for row in report.to_pylist()) == len(MIXED_ARCHIVE)
    assert read_rows(tmp_path / "lake") == [] if (tmp_path / "lake/transcripts/_delta_log").exists() else True

    table = TranscriptTable(config.lake)
    table.commit([StagedFile.from_row(row) for row in report.to_pylist()])
    rows = read_rows(tmp_path / "lake")
    assert {name_of(row): row["error"] and row["error"]["reason"] for row in rows} == MIXED_ARCHIVE
    for stage in ("load", "emit", "decode"):
        told_s = sum(row["stage_s"][stage] for row in report.to_pylist())
        assert 0 < told_s == pytest.approx(sum(row["timings"][f"{stage}_ms"] or 0 for row in rows) / 1000)


def test_an_object_that_goes_away_after_it_was_listed_is_not_found(tmp_path: Path) -> None:
    config = Config.model_validate({"archive": {"uri": str(tmp_path)}})
    for name in ("stays.wav", "goes.wav", "changes.wav"):
        write_wav(tmp_path / name, make_sound(0.2, seed=1))
    listed = columns.recordings_to_table(list(list_recordings(config.archive)))
    (tmp_path / "goes.wav").unlink()
    write_wav(tmp_path / "changes.wav", make_sound(0.3, seed=1))
    loaded = pa.concat_tables(Load(config)(listed))
    assert errors(loaded) == ["changed_during_read", "not_found", None]
    assert [len(channels or ()) for channels in loaded["waveforms"].to_pylist()] == [0, 0, 1]


def test_sure_blanks_only_are_an_ok_row_with_empty_text(random_lasr: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    """What a trained model emits for silence."""
    config = make_config(random_lasr, tmp_path / "lake", archive={"uri": str(tmp_path / "archive")})
    write_wav(tmp_path / "archive/silence.wav", np.zeros(16_000))
    silent = np.full((22, 64), -20.0, dtype=np.float32)
    silent[:, vocabulary.blank_id] = 0.0
    emissions = sparsify(silent, -5.5, 0.999, vocabulary.blank_id)
    assert emissions.kept == 1
    row = {"emissions": [columns.emissions_to_row(emissions)]}
    emitted = columns.extend(load(config), columns.EMITTED_COLUMNS | columns.EMISSIONS, [row], drop=columns.WAVEFORMS)
    for decoding in ({"kind": "greedy"}, {"kind": "beam", "lm": None}):
        with_decoding = make_config(random_lasr, tmp_path / "lake", decoding=decoding)
        decoded = Decode(with_decoding, vocabulary)(emitted)
        finished = RowAssembler(config, provenance_of(config), LASR).assemble(decoded.to_pylist()[0])
        assert (finished["status"], finished["error"]) == ("ok", None)
        assert (finished["text"], finished["text_raw"], finished["words"], finished["confidence"]) == ("", "", [], None)
        assert (finished["quality"]["duration_s"], finished["quality"]["level_dbfs"]) == (1.0, None)
        assert (finished["quality"]["lost_s"], finished["quality"]["repairs"]) == (0.0, [])
        assert (finished["source"]["loader"], finished["source"]["tracks"]) == (LOADER_VERSION, None)


def test_other_readings_are_kept_where_they_are_asked_for(random_lasr: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    write_wav(tmp_path / "archive/stereo.wav", np.stack([make_sound(2.0, seed=1), make_sound(2.0, seed=2)], axis=1))
    asked = {"kind": "beam", "lm": None, "nbest": 3}
    config = make_config(random_lasr, archive={"uri": str(tmp_path / "archive")}, decoding=asked)
    decoded = Decode(config, vocabulary)(Emit(config, vocabulary, threads=1)(load(config)))
    row = RowAssembler(config, provenance_of(config), LASR).assemble(decoded.to_pylist()[0])
    totals = [reading["total_score"] for reading in row["nbest"]]
    assert len(totals) == 3
    assert totals == sorted(totals, reverse=True)
    assert row["nbest"][0]["text"] == row["text_raw"]
    assert all(r["total_score"] == pytest.approx(r["acoustic_score"] + r["lm_score"]) for r in row["nbest"])
    both = decoded.to_pylist()[0]
    both["hypotheses"][1], both["alternatives"][1] = both["hypotheses"][0], both["alternatives"][0]  # dual mono
    once = RowAssembler(config, provenance_of(config), LASR).assemble(both)
    assert once["nbest"][0]["text"] == once["text_raw"]
    assert all(len(r["text"].split()) < 1.5 * len(once["text_raw"].split()) for r in once["nbest"])
    assert once["nbest"][0]["total_score"] == pytest.approx(
        both["hypotheses"][0]["acoustic_score"] + both["hypotheses"][0]["lm_score"]
    )
    plain = make_config(random_lasr, archive={"uri": str(tmp_path / "archive")}, decoding={**asked, "nbest": 1})
    decoded = Decode(plain, vocabulary)(Emit(plain, vocabulary, threads=1)(load(plain)))
    assert RowAssembler(plain, provenance_of(plain), LASR).assemble(decoded.to_pylist()[0])["nbest"] is None


def test_times_are_on_the_frame_grid_and_confidences_are_thousandths(
    random_lasr: Path, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    write_wav(tmp_path / "archive/a.wav", make_sound(4.0, seed=1))
    config = make_config(random_lasr, archive={"uri": str(tmp_path / "archive")})
    decoded = Decode(config, vocabulary)(Emit(config, vocabulary, threads=1)(load(config)))
    row = RowAssembler(config, provenance_of(config), LASR).assemble(decoded.to_pylist()[0])
    assert len(row["words"]) > 3
    for word in row["words"][:-1]:  # the last ends with the recording
        for time_s in (word["start_s"], word["end_s"]):
            assert time_s in {0.0, *(round(0.0525 + 0.04 * frame, 4) for frame in range(101))}
    for confidence in (row["confidence"], *(word["confidence"] for word in row["words"])):
        assert confidence == round(confidence, 3)


def test_sections_have_their_names_and_markers_are_counted(
    random_lasr: Path, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wav(tmp_path / "archive/a.wav", make_sound(1.0, seed=1))
    config = make_config(random_lasr, archive={"uri": str(tmp_path / "archive")})
    decoded = Decode(config, vocabulary)(Emit(config, vocabulary, threads=1)(load(config)))
    said = ["[CONCLUSION]", "{colon}", "clear", "{perod}", "{foo}"]
    words = [Word(word, index, index + 0.5, 0.9) for index, word in enumerate(said)]
    monkeypatch.setattr(RowAssembler, "_find_words", lambda *_: [words])  # what a model with random weights would not say
    row = RowAssembler(config, provenance_of(config), LASR).assemble(decoded.to_pylist()[0])
    assert row["text_raw"] == "[CONCLUSION] {colon} clear {perod} {foo}"
    assert [(section["heading"], section["name"]) for section in row["sections"]] == [("CONCLUSION", "IMPRESSION")]
    assert (row["quality"]["markers_repaired"], row["quality"]["markers_unknown"]) == (1, 1)


def test_what_breaks_inside_costs_one_row_and_tells_no_text(random_lasr: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    """Emissions that cannot be: offsets beyond the tokens. Only type and place of the exception reach the row."""
    config = make_config(random_lasr, tmp_path / "lake", archive={"uri": str(tmp_path / "archive")})
    for name in ("a.wav", "b.wav"):
        write_wav(tmp_path / "archive" / name, make_sound(0.5, seed=1))
    emitted = Emit(config, vocabulary, threads=1)(load(config))
    rows = emitted.select(["emissions"]).to_pylist()
    rows[0]["emissions"][0]["offsets"] = np.array([5, 900, 3], dtype=np.int32).tobytes()
    decoded = Decode(config, vocabulary)(columns.extend(emitted, columns.EMISSIONS, rows))
    broken, whole = (RowAssembler(config, provenance_of(config), LASR).assemble(row) for row in decoded.to_pylist())
    assert (whole["status"], whole["error"]) == ("ok", None)
    assert broken["status"] == "failed"
    assert (broken["error"]["stage"], broken["error"]["reason"], broken["error"]["retryable"]) == (
        "decode",
        "internal_error",
        True,
    )
    assert broken["error"]["detail"].split(" in ")[1].split(":")[0].endswith(".py")
    assert "a.wav" not in broken["error"]["detail"]


def test_a_model_that_fails_on_one_recording_does_not_cost_its_neighbours(
    random_lasr: Path, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    """A waveform without samples is impossible; it represents any input that a model cannot take."""
    config = make_config(random_lasr, archive={"uri": str(tmp_path / "archive")})
    for name in ("a.wav", "b.wav", "c.wav"):
        write_wav(tmp_path / "archive" / name, make_sound(0.5, seed=ord(name[0])))
    loaded = load(config)
    alone = Emit(config, vocabulary, threads=1)(loaded)
    waveforms = [columns.read_waveforms(loaded, i) for i in range(3)]
    waveforms[1] = []
    broken = columns.append_waveforms(loaded.drop_columns(["waveforms"]), waveforms)
    emitted = Emit(config, vocabulary, threads=1)(broken)
    assert errors(emitted)[::2] == [None, None]
    assert emitted["emissions"].to_pylist()[::2] == alone["emissions"].to_pylist()[::2]


@pytest.mark.parametrize(
    ("when", "month"),
    [
        (datetime(2024, 2, 29, tzinfo=UTC), "2024-02"),
        (datetime(1990, 1, 1, tzinfo=UTC), "1990-01"),
        (datetime(1989, 12, 31, tzinfo=UTC), "unknown"),
        (datetime(999, 1, 1, tzinfo=UTC), "unknown"),
        (datetime(9000, 1, 1, tzinfo=UTC), "unknown"),
        (None, "unknown"),
    ],
)
def test_the_month_of_a_recording_is_believable_or_unknown(
    random_lasr: Path, tmp_path: Path, when: datetime | None, month: str
) -> None:
    config = make_config(random_lasr, tmp_path / "lake")
    recording = Recording("0" * 32, str(tmp_path / "gone.wav"), "1-1", 1, modified_at=when)
    row: dict[str, Any] = next(Load(config)(columns.recordings_to_table([recording]))).to_pylist()[0]
    row |= dict.fromkeys([*columns.EMITTED_COLUMNS, *columns.DECODED_COLUMNS, *columns.HYPOTHESES])
    finished = RowAssembler(config, provenance_of(config), LASR).assemble(row)
    assert finished["recorded_month"] == month
    assert finished["error"]["reason"] == "not_found"


def test_waveforms_and_emissions_survive_the_trip_through_arrow() -> None:
    recordings = columns.recordings_to_table([Recording(f"{i}", f"{i}.wav", "1", 1) for i in range(3)])
    random = np.random.default_rng(0)
    waveforms = [[random.integers(-32768, 32768, n).astype(np.int16) for n in sizes] for sizes in ((5, 5), (), (100_000,))]
    table = columns.append_waveforms(recordings, waveforms)
    table = pa.concat_tables([table.slice(2), table.slice(0, 2)])  # blocks are sliced and joined on the way
    for row, wanted in zip((1, 2, 0), waveforms, strict=True):
        got = columns.read_waveforms(table, row)
        assert [channel.tolist() for channel in got] == [channel.tolist() for channel in wanted]
        again = columns.read_waveforms(table, row)
        assert all(np.shares_memory(one, other) for one, other in zip(got, again, strict=True)), "views, not copies"
    logits = random.normal(size=(50, 9)) * 3
    emissions = sparsify((logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32), -4.0, 0.9, 0)
    table = columns.extend(
        recordings.slice(0, 1), columns.EMISSIONS, [{"emissions": [columns.emissions_to_row(emissions)] * 2}]
    )
    first, second = columns.read_emissions(table, 0)
    for field in ("frame_index", "offsets", "token_ids", "logp"):
        assert (getattr(first, field) == getattr(emissions, field)).all()
        assert (getattr(second, field) == getattr(emissions, field)).all()
    assert (first.frames, first.vocabulary_size) == (50, 9)


class Listener:
    """A model that records its calls: ``most`` is the highest number at once; ``second`` is set when the second begins."""

    def __init__(self, model: AcousticModel, refuses: int | None = None) -> None:
        self._model, self._refuses = model, refuses
        self.grid, self.device, self.dtype = model.grid, model.device, model.dtype
        self.calls = self.now = self.most = 0
        self.second = threading.Event()

    def forward_windows(
        self, windows: Sequence[np.ndarray], exclusive_frames: Sequence[tuple[int, int]], pruning: PruneConfig
    ) -> list[WindowOutput[Stretch]]:
        self.calls, self.now = self.calls + 1, self.now + 1
        self.most = max(self.most, self.now)
        if self.calls == 2:
            self.second.set()
        try:
            if self.calls == self._refuses:
                raise MemoryError
            return self._model.forward_windows(windows, exclusive_frames, pruning)
        finally:
            self.now -= 1

    def emit(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self._model.emit(windows)

    def is_usable(self) -> bool:
        return True


@pytest.fixture
def four_groups(random_lasr: Path, tmp_path: Path) -> tuple[Config, pa.Table]:
    """Recordings of which each is as much as goes through the model in one call."""
    config = make_config(random_lasr, archive={"uri": str(tmp_path / "archive")}, acoustic={"batch_s": 0.25})
    for name in "abcd":
        write_wav(tmp_path / f"archive/{name}.wav", make_sound(0.9, seed=ord(name)))
    return config, load(config)


def test_the_model_hears_the_next_while_the_emissions_of_the_last_are_made(
    four_groups: tuple[Config, pa.Table], vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, loaded = four_groups
    emit_stage = Emit(config, vocabulary, threads=1)
    listener = Listener(emit_stage._opened.get())
    emit_stage._opened = DeferredResource(lambda: listener)
    ahead = []

    def wait_for_second(stretches: Iterable[np.ndarray | Stretch], pruning: PruneConfig) -> Emissions:
        heard = list(stretches)
        ahead.append(listener.second.wait(60))
        return sparsify_stretches(heard, pruning)

    monkeypatch.setattr(emit, "sparsify_stretches", wait_for_second)
    emitted = emit_stage(loaded)
    assert ahead == [True] * 4
    assert (listener.calls, listener.most) == (4, 1)
    monkeypatch.undo()
    # In the same batches: some processors round otherwise in larger ones.
    assert emitted["emissions"].to_pylist() == Emit(config, vocabulary, 1)(loaded)["emissions"].to_pylist()


def test_emissions_do_not_depend_on_the_batch(
    four_groups: tuple[Config, pa.Table], vocabulary: Vocabulary, random_lasr: Path
) -> None:
    """But for rounding. Nearly all tokens are kept, and probabilities compared, so that no threshold makes much of it."""
    config, loaded = four_groups
    emitted = []
    for batch_s in (config.acoustic.batch_s, 100.0):
        acoustic = config.acoustic.model_copy(update={"batch_s": batch_s})
        decoding = config.decoding.model_copy(update={"token_min_logp": -60.0, "collapse_blank": 1.0})
        stage = Emit(config.model_copy(update={"acoustic": acoustic, "decoding": decoding}), vocabulary, threads=1)
        table = stage(loaded)
        assert set(table["dtype"].to_pylist()) == {"float32"}
        emitted.append([np.exp(columns.read_emissions(table, row)[0].dense()) for row in range(table.num_rows)])
    for one, other in zip(*emitted, strict=True):
        assert one.shape == other.shape
        assert one == pytest.approx(other, abs=0.002)  # logarithms are float16
    assert not np.allclose(emitted[0][0], emitted[0][1], atol=0.1), "those of other recordings differ by more"


class Unplannable(Emit):
    """Cannot plan the windows of the recording of 0.7 s."""

    def _plan(self, recordings: list[list[np.ndarray]]) -> Any:
        if any(len(channel) == 11_200 for recording in recordings for channel in recording):
            raise IndexError
        return super()._plan(recordings)


def test_windows_that_cannot_be_planned_cost_one_row(random_lasr: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    config = make_config(random_lasr, archive={"uri": str(tmp_path / "archive")})
    for name, seconds in (("a", 0.9), ("b", 0.7), ("c", 0.9)):
        write_wav(tmp_path / f"archive/{name}.wav", make_sound(seconds, seed=1))
    loaded = load(config)
    lengths = [len(columns.read_waveforms(loaded, row)[0]) for row in range(3)]
    emitted = Unplannable(config, vocabulary, threads=1)(loaded)
    assert errors(emitted) == ["internal_error" if length == 11_200 else None for length in lengths]
    assert lengths.count(11_200) == 1


def test_a_call_that_fails_is_made_again_for_each_of_its_recordings_alone(
    four_groups: tuple[Config, pa.Table], vocabulary: Vocabulary
) -> None:
    config, loaded = four_groups
    wanted = Emit(config, vocabulary, threads=1)(loaded)
    emit_stage = Emit(config, vocabulary, threads=1)
    listener = Listener(emit_stage._opened.get(), refuses=2)
    emit_stage._opened = DeferredResource(lambda: listener)
    emitted = emit_stage(loaded)
    assert errors(emitted) == [None] * 4
    assert emitted["emissions"].to_pylist() == wanted["emissions"].to_pylist()
    assert (listener.calls, listener.most) == (5, 1)
