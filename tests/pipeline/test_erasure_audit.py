"""The audit of erasure in buckets: afterwards the word is in no object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dictalake.lake.erase import forget
from dictalake.lake.places import PLACES
from dictalake.lake.query import open_lake
from tests.audited_lake import NAMED, UNTOUCHED, fill_lake, list_leaks

if TYPE_CHECKING:
    from tests.emulators import ObjectStore


def test_the_word_is_in_no_object_of_the_bucket_afterwards(object_store: ObjectStore) -> None:
    lake = object_store.make_lake()
    fill_lake(lake, PLACES)
    for place in PLACES:
        assert bool(list_leaks(lake, place.folder)) == (place.personal in ("content", "archive")), place.folder
    assert forget(lake, NAMED, leave_unhashed=True).unknown == 0
    assert list_leaks(lake) == []
    rows = open_lake(str(lake.uri), lake.storage_options).to_table().to_pylist()
    assert {row["recording_id"] for row in rows} == UNTOUCHED
