"""What recordings that nobody has opened yet will take: estimated from their bytes, by what the lake holds of others."""

from __future__ import annotations

from dataclasses import dataclass

from dictalake.config.sections import Config
from dictalake.lake.delta import has_table
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.query import connect, find_names
from dictalake.lake.storage import open_storage

_RATES = """
    SELECT sum(quality.duration_s) / nullif(sum(source.size_bytes), 0),
        (SELECT sum(audio_hours) * 3600 / nullif(sum(wall_s), 0) FROM runs WHERE ok > 0)
    FROM transcripts
"""


@dataclass(frozen=True)
class Estimate:
    """Hours of audio, hours of wall time at the speed of the lake's runs, and their cost; None where nothing tells."""

    audio_hours: float | None = None
    wall_hours: float | None = None
    cost: float | None = None


def estimate_work(config: Config, size_bytes: int) -> Estimate:
    """Raises RunError where the lake cannot be read."""
    if not has_table(open_storage(config.lake, TRANSCRIPTS_FOLDER)):
        return Estimate()
    with connect(str(config.lake.uri), config.lake.storage_options, names=find_names(_RATES)) as lake:
        [(rate, speed)] = lake.sql(_RATES).fetchall()
    hours = None if rate is None else size_bytes * rate / 3600
    wall = None if hours is None or not speed else hours / speed
    price = config.report.price_per_hour
    return Estimate(hours, wall, None if wall is None or price is None else wall * price)
