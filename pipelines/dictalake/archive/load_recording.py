"""Recordings fetched and read one after the other, as a run reads them: files inside archive objects too.

A run does the same work many at a time (``workflow/stages/load.py``), with the same fetch, the same unpacking and the same
AudioLoader.
"""

from __future__ import annotations

from collections.abc import Container, Generator

from dictalake.archive.budget import ObjectBudget
from dictalake.archive.fetch import fetch
from dictalake.archive.members import Member
from dictalake.archive.unpack import Contents, find_kind, open_members
from dictalake.audio.load import AudioLoader, LoadedAudio
from dictalake.config.sections import Config
from dictalake.errors import ConfigError, InternalError, TranscriptionError, name_place
from dictalake.records import SAMPLE_RATE_HZ, Recording


def load_recording(
    recording: Recording, config: Config, loader: AudioLoader, only: Container[str] | None = None
) -> Generator[tuple[Recording, LoadedAudio | TranscriptionError], None, None]:
    """``recording`` with its sound, or with the error that a run would write into its row.

    An archive object gives each file in it instead, and itself with an error where it cannot be read as a whole. ``only`` names
    the files in it that are wanted, by their recording ids; the others are not read.
    Raises ConfigError, which every recording would meet.
    """
    if recording.error is not None:
        yield recording, recording.error
        return
    try:
        data = fetch(recording, config.archive, limits=config.limits)
        kind = find_kind(data, config.archive)
        if kind is None:
            yield recording, loader.load(data, recording)
            return
        with open_members(data, kind, recording, config.archive, config.limits, config.sandbox.level) as contents:
            budget = ObjectBudget(config.limits)
            for inside, member in contents.members:
                if only is not None and inside.recording_id not in only:
                    continue
                yield inside, _load_member(contents, inside, member, config, loader, budget)
            contents.check_whole()
    except ConfigError:
        raise
    except Exception as error:  # a defect of ours costs this recording, not the others
        yield recording, _as_failure(error, recording)


def _load_member(
    contents: Contents, recording: Recording, member: Member, config: Config, loader: AudioLoader, budget: ObjectBudget
) -> LoadedAudio | TranscriptionError:
    try:
        with budget.working():
            budget.require(recording.recording_id)
            loaded = loader.load(contents.read(recording, member, config.limits), recording)
            budget.add_sound(loaded.waveforms.size / SAMPLE_RATE_HZ)
            return loaded
    except ConfigError:
        raise
    except Exception as error:  # the same for the files inside of it
        return _as_failure(error, recording)


def _as_failure(error: Exception, recording: Recording) -> TranscriptionError:
    """A defect of ours or of a library costs one recording, not the command."""
    if isinstance(error, TranscriptionError):
        return error
    return InternalError(recording.recording_id, name_place(error), "load")
