"""Where the files of a language model are, and what identifies them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from huggingface_hub import snapshot_download

from dictalake.config.extraction import Extract
from dictalake.errors import ConfigError

_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
_HASHED = (".safetensors", "config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "tokenizer_config.json")
_CHUNK = 1 << 22


def find_folder(settings: Extract) -> Path:
    """The folder of ``extract.model``; a Hugging Face id is downloaded, unless its files are there. Raises ConfigError."""
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(settings.model, revision=settings.revision, allow_patterns=list(_PATTERNS)))
    except (OSError, ValueError) as error:  # the Hub's errors are OSErrors, and name the id alone
        raise ConfigError(
            f"extract.model = {settings.model}: no such folder, and not to be had from Hugging Face ({type(error).__name__}); "
            "MedGemma needs an account that accepted its terms, and a token"
        ) from None


def hash_model(folder: Path) -> str:
    """SHA-256 over the weights and what turns text into tokens."""
    total = sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.endswith(_HASHED):
            total.update(f"{path.name}\n".encode())
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    total.update(chunk)
    return total.hexdigest()


def name_model(settings: Extract) -> str:
    """The model's name for people and for provenance: an id in full, of a folder its last part."""
    folder = Path(settings.model).expanduser()
    return folder.name if folder.is_dir() else settings.model
