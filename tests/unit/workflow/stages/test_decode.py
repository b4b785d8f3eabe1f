"""The stage Decode: what is heard does not depend on the worker that decodes a recording, nor on what it decoded before."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Config
from dictalake.workflow import columns
from dictalake.workflow.stages.decode import Decode
from tests.beam_inputs import VOCABULARY, peaky
from tests.models import write_arpa

_RECORDINGS = 24


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A language model and hotwords, whose tables a worker fills as it goes; longer n-best lists than one."""
    folder = tmp_path_factory.mktemp("decode")
    words = [word for word in VOCABULARY.lm_words().values() if not word.startswith("<")]
    pairs = dict.fromkeys(zip(words, words[7:], strict=False), -0.3)
    lm = write_arpa(folder / "lm.arpa", dict.fromkeys(words, -2.0), pairs)
    (folder / "hotwords.txt").write_text("w1x2\nw3 w4\nw7\n", encoding="utf-8")
    decoding = {"kind": "beam", "lm": lm, "hotwords": str(folder / "hotwords.txt"), "nbest": 3}
    return Config.model_validate({"decoding": decoding})


def make_table(numbers: range) -> pa.Table:
    emissions = [sparsify(peaky(number, 12), -5.5, 0.999, VOCABULARY.blank_id) for number in numbers]
    rows = [[columns.emissions_to_row(one)] for one in emissions]
    return pa.table(
        {
            "recording_id": pa.array([f"recording-{number}" for number in numbers]),
            "error": pa.array([None] * len(numbers), columns.ERROR),
            "emissions": pa.array(rows, columns.EMISSIONS["emissions"]),
        }
    )


def decode(config: Config, workers: int, size: int) -> dict[str, object]:
    """Hypotheses by recording: the blocks go to the workers in turns, as Ray gives them out."""
    stages = [Decode(config, VOCABULARY) for _ in range(workers)]
    found: dict[str, object] = {}
    for turn, start in enumerate(range(0, _RECORDINGS, size)):
        decoded = stages[turn % workers](make_table(range(start, min(start + size, _RECORDINGS))))
        assert decoded["error"].null_count == len(decoded)
        rows = decoded.select(["recording_id", "hypotheses", "alternatives"]).to_pylist()
        found |= {row["recording_id"]: (row["hypotheses"], row["alternatives"]) for row in rows}
    return found


@pytest.mark.parametrize(("workers", "size"), [(2, 4), (3, 1), (8, 3)])
def test_any_number_of_workers_finds_the_same(config: Config, workers: int, size: int) -> None:
    alone = decode(config, 1, _RECORDINGS)
    assert len(alone) == _RECORDINGS
    assert decode(config, workers, size) == alone
