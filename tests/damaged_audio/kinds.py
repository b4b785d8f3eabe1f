"""All kinds of files that are damaged, joined, unclosed or oddly wrapped as real ones are.

Each function gives the files of one kind, each with its truth, over all containers in which the kind makes sense.
"""

from __future__ import annotations

from tests.damaged_audio.edges import make_cut_ends, make_inner_tags, make_leading
from tests.damaged_audio.encodings import make_undamaged
from tests.damaged_audio.headers import make_open_headers, make_stale_headers
from tests.damaged_audio.holes import make_gaps, make_holes, make_lost_ends
from tests.damaged_audio.joined import make_joined
from tests.damaged_audio.tracks import make_many_channels, make_tracks

KINDS = {
    "undamaged": make_undamaged,
    "joined": make_joined,
    "hole": make_holes,
    "lost end": make_lost_ends,
    "gap in the clock": make_gaps,
    "stale header": make_stale_headers,
    "open header": make_open_headers,
    "several tracks": make_tracks,
    "many channels": make_many_channels,
    "leading bytes": make_leading,
    "lawful things between frames": make_inner_tags,
    "cut end": make_cut_ends,
}
