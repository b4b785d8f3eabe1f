"""The schema holds what the design says, in types that Delta Lake has, and refuses rows that do not fit."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from dictalake.lake.schema import DOC, PARTITIONS, RECHECKS, RUNS, TRANSCRIPTS, conform, make_transcripts
from tests.lake_rows import make_failed_row, make_row

DELTA_TYPES = {pa.string(), pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.timestamp("us", tz="UTC")}


def leaves(field: pa.Field) -> Iterator[pa.Field]:
    """Every field below ``field`` that is not nested, list elements and map values included."""
    kind = field.type
    if pa.types.is_map(kind):
        inner = [kind.key_field, kind.item_field]
    elif pa.types.is_list(kind):
        inner = [kind.value_field]
    elif pa.types.is_struct(kind):
        inner = [kind.field(i) for i in range(kind.num_fields)]
    else:
        yield field
        return
    for child in inner:
        yield from leaves(child)


def test_columns_are_those_of_the_design() -> None:
    assert TRANSCRIPTS.names == [
        *("recording_id", "status", "run_id", "attempt", "archive_id", "archive_rows"),
        *("text", "text_raw", "sections", "words", "nbest", "confidence"),
        *("quality", "error", "source", "dicom", "metadata", "provenance", "timings", "fingerprint", "recorded_month"),
    ]
    assert PARTITIONS == ("fingerprint", "recorded_month")
    assert [field.name for field in TRANSCRIPTS if not field.nullable] == [
        *("recording_id", "status", "run_id", "attempt", "fingerprint", "recorded_month")
    ]
    struct = TRANSCRIPTS.field("source").type
    assert [struct.field(i).name for i in range(struct.num_fields)] == [
        *("uri", "version", "size_bytes", "modified_at", "sha256", "container", "codec"),
        *("sample_rate_hz", "channels", "bits_per_sample", "loader", "tracks"),
    ]


def test_dicom_columns_name_no_patient_but_as_a_hash() -> None:
    struct = TRANSCRIPTS.field("dicom").type
    assert [struct.field(i).name for i in range(struct.num_fields)] == [
        *("sop_class_uid", "sop_instance_uid", "series_instance_uid", "study_instance_uid", "content_datetime"),
        *("modality", "manufacturer", "manufacturer_model_name"),
        *("patient_id_hash", "patient_name_hash", "patient_birth_date_hash"),
    ]


@pytest.mark.parametrize("schema", [TRANSCRIPTS, RUNS, RECHECKS], ids=["transcripts", "runs", "rechecks"])
def test_every_leaf_has_a_type_that_delta_lake_has(schema: pa.Schema) -> None:
    assert {leaf.type for field in schema for leaf in leaves(field)} <= DELTA_TYPES


@pytest.mark.parametrize("schema", [TRANSCRIPTS, RUNS, RECHECKS], ids=["transcripts", "runs", "rechecks"])
def test_every_column_and_struct_field_is_documented(schema: pa.Schema) -> None:
    for field in schema:
        assert field.metadata[DOC.encode()], field.name
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_struct(kind):
            assert all(kind.field(i).metadata[DOC.encode()] for i in range(kind.num_fields)), field.name


def test_a_failed_row_needs_only_its_identity_and_error() -> None:
    table = make_transcripts([make_failed_row("a" * 32)])
    assert table.schema.equals(TRANSCRIPTS)
    row = table.to_pylist()[0]
    assert row["error"] == {"stage": "load", "reason": "not_audio", "detail": "the object is text", "retryable": False}
    assert (row["text"], row["words"], row["source"]) == (None, None, None)


def test_a_block_of_failed_rows_has_the_same_types_as_one_of_good_rows() -> None:
    assert make_transcripts([make_failed_row("a")]).schema == make_transcripts([make_row("b")]).schema


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"txt": "hello"}, "txt"),
        ({"quality": {"length_s": 1.0}}, "quality.length_s"),
        ({"words": [{"text": "no"}]}, "words.text"),
    ],
)
def test_a_misspelt_key_is_named_and_not_dropped(changes: dict[str, object], path: str) -> None:
    with pytest.raises(ValueError, match=f"^keys that the schema does not have: {path}$"):
        make_transcripts([make_row("a", **changes)])


def test_a_missing_required_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"^required columns hold nulls: run_id$"):
        make_transcripts([make_row("a", run_id=None)])


def test_conform_reorders_columns_and_gives_null_columns_their_type() -> None:
    table = make_transcripts([make_failed_row("a")])
    shuffled = table.select(TRANSCRIPTS.names[::-1]).set_column(0, pa.field("recorded_month", pa.string()), [["2026-03"]])
    untyped = shuffled.set_column(shuffled.schema.get_field_index("dicom"), "dicom", pa.nulls(1))
    assert conform(untyped, TRANSCRIPTS).equals(table)


def test_conform_names_columns_that_do_not_fit() -> None:
    table = make_transcripts([make_row("a")]).rename_columns({"text": "txt"})
    with pytest.raises(ValueError, match=r"missing \['text'\], unknown \['txt'\]"):
        conform(table, TRANSCRIPTS)
