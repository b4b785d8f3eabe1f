"""Three recordings with their references, and what a system made of them."""

from __future__ import annotations

from dictalake.evaluation.systems import SystemOutput
from dictalake.records import Recording

GOOD = Recording("a", "file:///demo/recordings/ct/1.wav", "1", 10, metadata={"reference": "no acute fracture", "voice": "slt"})
LOST = Recording("b", "file:///demo/recordings/ct/2.wav", "1", 10, metadata={"reference": "lungs are clear", "voice": "awb"})
BROKEN = Recording("c", "file:///demo/recordings/notes.wav", "1", 10)
RECORDINGS = [GOOD, LOST, BROKEN]
OUTPUTS = {
    "a": SystemOutput("no cute fracture", "No cute fracture"),
    "b": SystemOutput(reason="fetch_failed", detail="4 tries failed"),
    "c": SystemOutput(reason="not_audio", detail="this is text"),
}
