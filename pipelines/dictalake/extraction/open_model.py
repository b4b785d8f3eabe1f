"""Opens the model of ``extract.kind``."""

from __future__ import annotations

from collections.abc import Mapping

from dictalake.config.extraction import Extract
from dictalake.errors import ConfigError
from dictalake.extraction.model import LanguageModel


def open_model(settings: Extract, constraint: Mapping[str, bool | None] | None = None) -> LanguageModel:
    """The model of ``extract.kind``; ``constraint`` is what a probe of the server found. Raises ConfigError, RunError."""
    try:
        return _open(settings, constraint)
    except ImportError as error:
        raise ConfigError(
            f"extract.kind = {settings.kind} needs the package {error.name}: pip install 'dictalake[extract]'"
        ) from None


def _open(settings: Extract, constraint: Mapping[str, bool | None] | None) -> LanguageModel:
    match settings.kind:
        case "openai":
            from dictalake.extraction.server_model import ServerModel

            return ServerModel(settings, constraint)
        case "transformers":
            from dictalake.extraction.local_model import LocalModel

            return LocalModel(settings)
        case "vllm":
            raise ConfigError("extract.kind = vllm runs in a Ray job alone: use dictalake extract, or a vLLM server (openai)")
