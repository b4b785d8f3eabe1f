"""Streams of bare frames (MP3, ADTS, AMR, AC-3 …), which have no clock: their bytes tell what is missing, and how much."""

from __future__ import annotations

import av

from dictalake.audio.formats.announced import find_mp3_length
from dictalake.audio.formats.frames import is_frame_chain
from dictalake.audio.formats.tags import count_tag_bytes
from dictalake.audio.formats.timeline import Timeline

_LEAST_S = 0.01  # of missing sound that counts: less is a byte of stuffing
_MEAN_OF_S = 0.2  # so much decoded sound makes an average of bytes a second
_MISPLACED_S = 0.1
_LEAD_PACKETS = 3  # FFmpeg passes over so much before the first frame, at most, in whole files
_ONE_HOLE_S = 0.5


class BareFrames:
    """Follows FFmpeg's packets through the bytes of one stream, and tells ``timeline`` how long what lies between them was.

    ``missing_s`` is missing at the one place where the stream is damaged, beside the bytes there, or, below 0, is not missing
    where bytes were put in: a reader that learns that only at the end (``misplaced_s``) begins anew with it.
    """

    def __init__(self, data: bytes, container: str, bits_per_s: int, timeline: Timeline, missing_s: float) -> None:
        self._data, self._container, self._timeline = data, container, timeline
        self._bytes_per_s = bits_per_s / 8
        self._missing_s, self.misplaced_s, self._is_retry = missing_s, 0.0, missing_s != 0.0
        self._read_to: int | None = None  # where the bytes end that packets accounted for
        self._good_bytes, self._largest = 0, 0
        self._holes, self._last_hole_s = 0, 0.0
        self._kind: bytes | None = b"" if container in ("mp3", "aac") else None  # of the frames: two bytes of their headers
        self._skipped = 0
        self._seam = False  # a tag was met since the last frame
        self._announced_s: float | None = None

    def find(self, packet: av.Packet) -> None:
        """Notes where the packet lies, and what lies before it."""
        read_to = self._read_to
        if read_to is not None and packet.pos == read_to and not self._holes and not self._skipped:  # nothing between
            self._read_to = read_to + packet.size
            return
        at = self._find_start(packet)
        if self._read_to is None:
            if self._container == "mp3":
                self._announced_s = find_mp3_length(self._data[: at + packet.size])
            lead = at - count_tag_bytes(self._data, 0, at)
            if self._announced_s is None and lead > _LEAD_PACKETS * packet.size:
                self._skip(at - lead, at)
        elif at > self._read_to:
            self._skip(self._read_to, at)
        self._read_to = at + packet.size

    def _find_start(self, packet: av.Packet) -> int:
        """FFmpeg does not count what it skips after damage, so its positions fall behind then."""
        read_to = self._read_to or 0
        at = read_to if packet.pos is None else packet.pos + self._skipped
        if self._holes:
            head = bytes(packet)[:16]
            if not self._data.startswith(head, at) and (found := self._data.find(head, read_to)) >= 0:
                self._skipped += found - at
                at = found
        return at

    def is_frame(self, packet: av.Packet) -> bool:
        """Whether a packet of MP3 or ADTS is a frame of this stream, or the first of another that goes on.

        In damaged bytes FFmpeg finds frames where there are none, of any rate and channel count.
        """
        if self._kind is None:
            return True
        at = (self._read_to or 0) - packet.size
        kind = self._data[at + 1 : at + 3]
        if kind and self._kind and kind[0] == self._kind[0] and not (kind[-1] ^ self._kind[-1]) & 0x0C:
            return True
        if not is_frame_chain(self._data, at, self._container):
            return self._kind == b""  # free-format MP3 announces no lengths
        self._kind = kind
        return True

    def count_good(self, size: int) -> None:
        """A packet of so many bytes gave sound."""
        self._good_bytes += size
        if size > self._largest:
            self._largest = size

    def break_packet(self, packet: av.Packet) -> None:
        """The packet that was found last cannot be decoded."""
        if self._read_to is not None:
            self._skip(self._read_to - packet.size, self._read_to)

    def pass_seam(self) -> bool:
        """Whether a tag was met since the last frame."""
        seam, self._seam = self._seam, False
        return seam

    def finish(self) -> None:
        """After the last packet."""
        timeline = self._timeline
        is_complete = self._announced_s is not None and abs(timeline.at_s - self._announced_s) <= _MISPLACED_S
        if is_complete:
            if timeline.drop_owed() or (self._read_to or 0) < len(self._data) - count_tag_bytes(
                self._data, self._read_to or 0, len(self._data)
            ):
                timeline.repairs.add("trailing_bytes")
        elif self._read_to is not None and self._read_to < len(self._data):
            self._skip(self._read_to, len(self._data))
        rest_bytes = timeline.owed_s * self._average()
        announced_s = self._announced_s if "joined" not in timeline.repairs else None
        if announced_s is not None and self._holes and not timeline.owed_s and not self._is_retry:
            # Bytes were taken out there: sound is missing where the damage is, not at the end. Or bytes were put in, and
            # nothing is missing.
            missing_s = max(announced_s - timeline.at_s, -timeline.lost_s)
            is_known = missing_s < -_MISPLACED_S or (missing_s > _MISPLACED_S and self._holes == 1)
            self.misplaced_s = missing_s if is_known else 0.0
        timeline.finish(announced_s, is_cut=rest_bytes <= 2 * self._largest)
        if announced_s is not None and timeline.at_s > announced_s + 0.5:
            timeline.repairs.add("header_short")

    def _skip(self, start: int, end: int) -> None:
        """These bytes gave no sound: tags are none, the rest is sound that is missing."""
        tagged = count_tag_bytes(self._data, start, end)
        self._seam |= tagged > 0
        rest = end - start - tagged
        if rest <= 0 or (tagged and find_mp3_length(self._data[start:end]) is not None):
            return  # behind the tag of a joined file stands a frame that holds its length, not sound
        if not self._holes and self._missing_s > 0:
            self._timeline.miss(self._missing_s)
        # One hole breaks several packets, and the ones that depend on them.
        self._holes += not self._holes or self._timeline.decoded_s > self._last_hole_s + _ONE_HOLE_S
        self._last_hole_s = self._timeline.decoded_s
        per_s = self._average()
        missed_s = rest / per_s if per_s > 0 else 0.0
        spurious_s = min(missed_s, max(-self._missing_s, 0.0))
        self._missing_s += spurious_s
        if missed_s - spurious_s > _LEAST_S:
            self._timeline.miss(missed_s - spurious_s)

    def _average(self) -> float:
        """Bytes a second of what was decoded; the announced rate before there is enough of it."""
        decoded_s = self._timeline.decoded_s
        return self._good_bytes / decoded_s if decoded_s > _MEAN_OF_S else self._bytes_per_s
