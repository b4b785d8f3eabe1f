"""Finds a model's files: a local folder, an embedded asset, or a pinned Hugging Face snapshot; never runs its code."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pipelines.acoustic.model import ModelIdentity
from pipelines.config import Acoustic, Config, resolve
from pipelines.errors import ConfigError

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZER = ("tokenizer.json", "vocab.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.kenlm")
_IN_MODEL = "model:"


@dataclass(frozen=True)
class Checkpoint:
    """A folder with ``config.json``, safetensors weights and a tokenizer, and who it is."""

    folder: Path
    identity: ModelIdentity

    @property
    def config(self) -> dict[str, object]:
        return dict(json.loads((self.folder / "config.json").read_text(encoding="utf-8")))


def find_checkpoint(acoustic: Acoustic) -> Checkpoint:
    """The model's folder with its identity: reads all its bytes once, for the hash. Raises ConfigError as ``find_folder``."""
    folder, revision = find_folder(acoustic)
    return Checkpoint(folder, ModelIdentity(acoustic.model, revision, hash_folder(folder)))


def locate_lm(config: Config) -> Config:
    """``decoding.lm: model:NAME`` → the path of that file in the model's own folder, here on this machine."""
    lm = config.decoding.lm
    if lm is None or not lm.startswith(_IN_MODEL) or config.decoding.kind == "greedy":
        return config
    path = find_folder(config.acoustic)[0] / lm.removeprefix(_IN_MODEL)
    if not path.is_file():
        raise ConfigError(f"decoding.lm = {lm}: {config.acoustic.model} holds no such file; give its path, or null for none")
    return config.model_copy(update={"decoding": config.decoding.model_copy(update={"lm": str(path)})})


def find_folder(acoustic: Acoustic) -> tuple[Path, str | None]:
    """Folder and revision. Raises ConfigError that names ``acoustic.model`` and what to do. A folder needs no network."""
    location = resolve(acoustic.model)
    folder = Path(location)
    revision = acoustic.revision
    if not folder.is_dir():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", location):
            raise ConfigError(f"acoustic.model = {acoustic.model}: no such folder, and not a Hugging Face id (owner/name)")
        folder = _download(location, revision)
        revision = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else revision
    if not (folder / "config.json").is_file():
        raise ConfigError(f"acoustic.model = {acoustic.model}: no config.json in it; expected a Hugging Face checkpoint folder")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise ConfigError(f"acoustic.model = {acoustic.model}: no model.safetensors in it; other weight formats are refused")
    return folder, revision


def hash_folder(folder: Path) -> str:
    """sha256 over names and bytes of the files that decide what the model says."""
    names = ("config.json", "preprocessor_config.json", "processor_config.json", *_TOKENIZER)
    files = [folder / name for name in names if (folder / name).is_file()]
    files += sorted([*folder.glob("*.safetensors"), *folder.glob("*.model")])
    digest = sha256()
    for file in files:
        digest.update(f"{file.name}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _download(model_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=list(_PATTERNS)))
    except GatedRepoError:
        raise ConfigError(
            f"acoustic.model = {model_id}: access is gated; accept its terms on its Hugging Face page, then set HF_TOKEN"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"acoustic.model = {model_id}: cannot be fetched ({type(error).__name__}); without a network give a local folder"
        ) from None
