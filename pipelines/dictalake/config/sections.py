"""The whole configuration, typed: a section for each part of a run, a field for each key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, PositiveInt, field_validator, model_validator

from dictalake.config.embedding import Embedding
from dictalake.config.extraction import Extract
from dictalake.config.headerless import Headerless, complete_entries
from dictalake.config.observability import Lineage, Logs, Metrics, Report
from dictalake.config.review import Review
from dictalake.config.section import Section

PATIENT_KEY = "DICTALAKE_PATIENT_KEY"
PatientField = Literal["PatientID", "PatientName", "PatientBirthDate"]
PATIENT_HASHES = {  # column of the lake's struct `dicom` for each
    "PatientID": "patient_id_hash",
    "PatientName": "patient_name_hash",
    "PatientBirthDate": "patient_birth_date_hash",
}


class Archive(Section):
    """Where the recordings are."""

    uri: str | None = Field(None, description="folder or bucket to list: a path, gs://…, s3://…, or embedded:demo-archive")
    include: tuple[str, ...] = Field(("**",), description="globs on the path below archive.uri; ** crosses folders")
    manifest: str | None = Field(None, description="CSV, JSON lines or Parquet with a `uri` column, instead of a listing")
    inventory: str | None = Field(
        None,
        description="inventory of the bucket, instead of a listing: manifest.json of Amazon S3 Inventory or of a Cloud Storage "
        "inventory report",
    )
    allowed: tuple[str, ...] | None = Field(
        None,
        description="prefixes of the places that a manifest or inventory may name: folders, gs://bucket/folder, https://host/; "
        "default: archive.uri, or without it the folder or bucket of the manifest or inventory; other lines are `not_allowed`",
    )
    follow_links: bool = Field(
        False,
        description="follow symbolic links in a folder that lead out of archive.uri; only where everybody who may write "
        "there may read all that this user may",
    )
    since: datetime | None = Field(None, description="only objects modified at or after this time (UTC if no zone)")
    expand: bool = Field(True, description="take the files inside ZIP, TAR, TAR.GZ and gzip objects as recordings")
    member_include: tuple[str, ...] = Field(
        ("**",), description="globs on the path inside such an object; a done one is not opened again when they change"
    )
    storage_options: dict[str, Any] = Field(default_factory=dict, description="options of the fsspec file system")
    time_zone: str = Field("UTC", description="where DICOM and ZIP say no offset with a time: an IANA name, Europe/Vienna")
    patient_fields: tuple[PatientField, ...] = Field(
        (), description="DICOM attributes of the patient that become keyed hashes; the key is in DICTALAKE_PATIENT_KEY"
    )
    headerless: dict[str, Headerless] = Field(
        default_factory=dict,
        description="what headerless files are, by the ending of their names: a list of endings whose meaning is usual, [ul, "
        "gsm, sln16], or for each its codec (mu_law, a_law, g722, gsm, vox, pcm_s16le, pcm_s16be, pcm_s8, pcm_u8), rate_hz and "
        "channels: {dat: {codec: mu_law, rate_hz: 8000}}; a file of a known format goes by its content all the same",
    )
    vox_rate_hz: int | None = Field(
        None,
        ge=4_000,
        le=48_000,
        description="sample rate of .vox files, Hz; an entry vox in archive.headerless takes precedence over this key",
    )
    fetch_tries: int = Field(4, ge=1, le=20, description="tries for one object before it is `fetch_failed`")
    fetch_s: float = Field(
        3600.0,
        gt=0,
        description="seconds for one object with all tries and pauses, before it is `fetch_failed`; the default suffices for "
        "2 GB over a line of 5 Mbit/s",
    )
    silence_s: float = Field(
        60.0,
        gt=0,
        description="seconds in which the storage sends less than 16 kB of an object before the try is given up",
    )

    @field_validator("include", "member_include", "patient_fields", "allowed", mode="before")
    @classmethod
    def _one_glob(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("headerless", mode="before")
    @classmethod
    def _usual_entries(cls, value: Any) -> Any:
        return complete_entries(value)

    def find_headerless(self, ending: str) -> Headerless | None:
        """How files whose names end in ``.ending`` (lower case) are coded; None where nobody said."""
        found = self.headerless.get(ending)
        if found is None and ending == "vox" and self.vox_rate_hz is not None:
            return Headerless(codec="vox", rate_hz=self.vox_rate_hz, channels=1)
        return found

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone; give an IANA name such as Europe/Vienna or America/New_York") from None
        return value

    @field_validator("since")
    @classmethod
    def _utc(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Limits(Section):
    """What one recording may be and cost. A recording beyond a limit gets a failed row; its reason names the limit."""

    object_mb: float = Field(2048.0, gt=0, description="megabytes of one object; more is `object_too_large`")
    duration_h: float = Field(6.0, gt=0, le=24, description="hours of one recording; more is `too_long`")
    channels: int = Field(16, ge=1, le=64, description="channels of one recording; more is `too_many_channels`")
    members: int = Field(
        10_000, ge=1, description="files in one archive object, and so the rows that it makes; more is `too_many_members`"
    )
    expanded_mb: float = Field(
        20_000.0,
        gt=0,
        description="megabytes that one archive object unpacks to, also on a worker's disk; more is `expands_too_large`",
    )
    archive_h: float = Field(
        1000.0,
        gt=0,
        description="hours of sound of one archive object in one run, its channels counted apart; the files beyond are "
        "`archive_over_budget`",
    )
    archive_s: float = Field(
        14_400.0,
        gt=0,
        description="processor seconds to unpack and decode the files of one archive object in one run; the files beyond are "
        "`archive_over_budget`",
    )
    windows: int = Field(5000, ge=1, description="windows of one recording, all channels; more is `too_many_windows`")
    decode_s: float = Field(
        300.0,
        gt=0,
        description="processor seconds to decode one recording, and a third of the clock seconds; more is `decoder_timeout`",
    )
    lost_ratio: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of one recording that may be damaged beyond decoding; more is `corrupt_audio`, less is in "
        "quality.lost_s",
    )
    storage_failures: int = Field(
        1000, ge=0, description="the run stops when the storage fails for this many recordings in a row; 0: never"
    )
    decode_mb: float = Field(4096.0, ge=64, description="megabytes of memory to decode one recording; more is `too_large`")


class DecoderSandbox(Section):
    """How untrusted bytes are decoded: in processes that the kernel confines (Landlock, seccomp)."""

    level: Literal["auto", "require"] = Field(
        "auto",
        description="auto: confine decoders with what this machine's kernel has; require: refuse to start where Landlock or "
        "seccomp is missing",
    )


class Acoustic(Section):
    """The model that turns waveforms into emissions, or the engine that turns them into words without a decoder."""

    kind: Literal["ctc", "whisper", "qwen3-asr", "parakeet-tdt"] = Field(
        "ctc",
        description="ctc: LASR (MedASR), Parakeet-CTC or a model of the wav2vec 2.0 family; whisper: faster-whisper; "
        "qwen3-asr; parakeet-tdt",
    )
    model: str = Field(
        "embedded:medasr-mini",
        description="folder or Hugging Face id of a model of that kind; embedded:medasr-mini; packaged:tiny.en (whisper)",
    )
    revision: str | None = Field(None, description="commit of the Hugging Face repository; pin it")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the hardware computes in it"
    )
    actors: PositiveInt | Literal["auto"] = Field("auto", description="model copies; auto: one a GPU, or one per 8 CPUs")
    gpus_per_actor: float = Field(1.0, gt=0, description="GPUs that one actor takes when the device is a GPU")
    cpus_per_actor: float = Field(1.0, gt=0, description="logical CPUs that one actor takes")
    batch_s: float = Field(
        160.0,
        gt=0,
        description="seconds of audio in one batch of the model; CPU threads share them, and each gets at least a window",
    )
    compile: bool = Field(
        False,
        description="run full batches through torch.compile in a CUDA graph; needs LASR, a GPU, Triton and a C compiler; a "
        "worker starts a minute later, and rounds a full batch differently from other batches",
    )
    language: str = Field("en", description="language of the recordings, for whisper and qwen3-asr; a CTC model has its own")
    beam_width: PositiveInt | Literal["auto"] = Field(
        "auto", description="beams of whisper (auto: 5) and qwen3-asr (auto: 1); for a CTC model see decoding.beam_width"
    )
    stretch_s: float | Literal["auto"] = Field(
        "auto",
        description="most seconds of a recording that whisper (auto: 600), qwen3-asr or parakeet-tdt (auto: 60) gets at once",
    )

    @field_validator("stretch_s")
    @classmethod
    def _within_bounds(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not 10 <= value <= 1200:
            raise ValueError("must be auto or from 10 to 1200")
        return value

    @model_validator(mode="after")
    def _compiles_emissions_alone(self) -> Acoustic:
        if self.compile and self.kind != "ctc":
            raise ValueError("compile is for kind ctc")
        return self

    @property
    def gives_text(self) -> bool:
        """Whether the engine gives words, so that no decoder runs."""
        return self.kind != "ctc"


class Windows(Section):
    """How long recordings are cut."""

    length_s: float = Field(20.0, ge=1.0, le=120.0, description="seconds that the model sees in one pass")
    overlap_s: float = Field(2.0, ge=0.0, description="seconds that neighbouring windows share")

    @model_validator(mode="after")
    def _overlap_fits(self) -> Windows:
        if self.overlap_s > self.length_s / 2:
            raise ValueError("overlap_s must be at most half of length_s")
        return self


class Decoding(Section):
    """The search that turns emissions into text."""

    kind: Literal["greedy", "beam"] = Field("beam", description="beam: beam search with the language model, if one is given")
    engine: Literal["auto", "native", "pyctcdecode"] = Field(
        "auto", description="auto: native; pyctcdecode is many times slower, and needs Python below 3.13"
    )
    beam_width: int = Field(8, ge=1, le=1024, description="hypotheses kept after each frame")
    lm: str | None = Field("embedded:medasr-mini/lm_6.kenlm", description="KenLM file (ARPA or binary) over the model's pieces")
    lm_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="sha256 of that file; a file with another one is refused"
    )
    lm_weight: float = Field(0.5, ge=0, le=10, description="alpha of shallow fusion")
    word_score: float = Field(1.5, ge=-10, le=10, description="beta: added for each piece")
    known_pieces: bool = Field(
        True, description="false: as in Google's recipe, where an unfinished piece costs its beam 10 nats or more"
    )
    beam_prune_logp: float = Field(-10.0, le=0, description="beams this much worse than the best are dropped")
    token_min_logp: float = Field(-5.0, ge=-60, le=0, description="tokens less likely than this are not tried")
    hotwords: str | None = Field(
        None, description="text file of terms that beam search favours, one a line; a weight may follow after a tab"
    )
    hotword_weight: float = Field(0.7, ge=0, le=10, description="nats for each letter of a hotword")
    hotword_guard: float = Field(4.0, ge=0, description="a hotword is refused when the sound is more nats than this against it")
    nbest: int = Field(1, ge=1, le=1024, description="hypotheses in the column `nbest`; 1 leaves it null; at most beam_width")
    collapse_blank: float = Field(
        0.999, gt=0.5, le=1.0, description="runs of frames with p(blank) above this become one; 1 never"
    )
    actors: PositiveInt | Literal["auto"] = Field("auto", description="decoder processes; auto: one per 4 CPUs")

    @field_validator("engine", mode="before")
    @classmethod
    def _engine_exists(cls, value: object) -> object:
        if value == "ctc-beam-decoder":
            raise ValueError("ctc-beam-decoder is no longer used; set auto, which is dictalake's own search and faster")
        return value

    @model_validator(mode="after")
    def _nbest_fits(self) -> Decoding:
        if self.nbest > self.beam_width:
            raise ValueError(f"nbest must be at most beam_width ({self.beam_width})")
        return self


class Confidence(Section):
    """How a word's confidence is computed: 1 / (1 + exp(-(evidence / temperature + bias))). `tune` fits it to your data.

    The evidence is a sum. One part is the logit of the mean over the word's pieces of their highest probability. The other
    is ``nbest_weight`` times the logit of the share of the n-best list that has the word.
    """

    temperature: float = Field(
        1.0, gt=0, le=100, description="above 1 lowers high confidences and raises low ones; below 1 does the opposite"
    )
    bias: float = Field(0.0, ge=-20, le=20, description="below 0 lowers the confidence of every word")
    nbest_weight: float = Field(0.0, ge=0, le=10, description="weight of the n-best list beside the acoustic evidence")


class Formatting(Section):
    """How the readable text is written; `text_raw` always keeps the words as spoken."""

    numbers: bool = Field(False, description="write spoken numbers, doses, dates and levels: five milligrams → 5 mg")


class Quality(Section):
    """What is measured of a recording, and when the summary lists it."""

    vad: Literal["webrtc", "silero", "none"] = Field(
        "webrtc", description="voice activity detector; silero is better in noise, far slower, and needs its package"
    )
    uncovered_s: float = Field(
        5.0, ge=0, description="the summary lists a recording with at least this many seconds of speech without words"
    )


class Lake(Section):
    """Where the transcripts go."""

    uri: str | None = Field(None, description="folder of the lake: a path, gs://…, s3://…")
    storage_options: dict[str, str] = Field(default_factory=dict, description="options of delta-rs's object store")
    lease_s: float = Field(
        180.0,
        gt=0,
        description="a run that gives no sign of life for this many seconds counts as dead; others take over its work",
    )
    file_mb: float = Field(256.0, ge=1, le=2048, description="size in megabytes of the files that `compact` writes")
    retention_h: int = Field(
        168, ge=24, description="hours that replaced files are kept for readers and runs that still use them"
    )
    commit_every_s: float = Field(2.0, ge=0, description="the driver commits finished files at most this often")
    earliest_month: str = Field(
        "1990-01", pattern=r"^\d{4}-\d{2}$", description="recordings dated before this month are in month `unknown`"
    )


class RayCluster(Section):
    """The cluster that does the work."""

    address: str | None = Field(None, description="address of an existing cluster; none starts one on this machine")
    cpus: int | None = Field(None, ge=1, description="logical CPUs of a local cluster; default all")
    runners: PositiveInt | Literal["auto"] = Field(
        "auto", description="processes that share out the work, each with its part of the cluster; auto: one for 2 GPUs"
    )
    load_memory_mb: float = Field(
        1000.0,
        gt=0,
        description="memory that the cluster reserves for one load worker and its decoders; a recording that needs more than "
        "its decoder's share is decoded again within limits.decode_mb, one at a time on a machine",
    )
    emit_memory_mb: float = Field(1000.0, gt=0, description="memory that the cluster reserves for one model, without the GPU's")
    decode_memory_mb: float = Field(400.0, gt=0, description="memory that the cluster reserves for one decoder process")
    finish_memory_mb: float = Field(300.0, gt=0, description="memory that the cluster reserves for one finishing worker")
    stall_s: float = Field(300.0, gt=0, description="seconds without a finished recording before a run logs what it waits for")
    block_rows: int = Field(64, ge=1, description="most recordings in one block, which travels and is committed as a whole")
    block_audio_s: float = Field(
        1800.0, gt=0, description="most seconds of loaded audio in one block; a longer recording is a block of its own"
    )
    block_mb: float = Field(32.0, gt=0, description="most megabytes of stored audio in one block")


class Config(Section):
    """Every key of dictalake."""

    archive: Archive = Archive()  # type: ignore[call-arg]
    limits: Limits = Limits()  # type: ignore[call-arg]
    sandbox: DecoderSandbox = DecoderSandbox()  # type: ignore[call-arg]
    acoustic: Acoustic = Acoustic()  # type: ignore[call-arg]
    windows: Windows = Windows()  # type: ignore[call-arg]
    decoding: Decoding = Decoding()  # type: ignore[call-arg]
    confidence: Confidence = Confidence()  # type: ignore[call-arg]
    formatting: Formatting = Formatting()  # type: ignore[call-arg]
    quality: Quality = Quality()  # type: ignore[call-arg]
    lake: Lake = Lake()  # type: ignore[call-arg]
    ray: RayCluster = RayCluster()  # type: ignore[call-arg]
    metrics: Metrics = Metrics()  # type: ignore[call-arg]
    lineage: Lineage = Lineage()  # type: ignore[call-arg]
    logs: Logs = Logs()  # type: ignore[call-arg]
    report: Report = Report()  # type: ignore[call-arg]
    review: Review = Review()  # type: ignore[call-arg]
    extract: Extract = Extract()  # type: ignore[call-arg]
    embedding: Embedding = Embedding()  # type: ignore[call-arg]
