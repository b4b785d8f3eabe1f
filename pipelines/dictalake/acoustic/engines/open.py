"""Opens the engine that the configuration names."""

from __future__ import annotations

from dictalake.acoustic.engines.base import TextEngine, no_engine
from dictalake.config.sections import Acoustic


def open_engine(acoustic: Acoustic, threads: int) -> TextEngine:
    """Loads the engine that ``acoustic.kind`` names; on a CPU it uses ``threads`` threads."""
    match acoustic.kind:
        case "whisper":
            from dictalake.acoustic.engines.whisper import WhisperEngine

            return WhisperEngine.load(acoustic, threads)
        case "qwen3-asr":
            from dictalake.acoustic.engines.qwen import QwenEngine

            return QwenEngine.load(acoustic, threads)
        case "parakeet-tdt":
            from dictalake.acoustic.engines.parakeet import ParakeetEngine

            return ParakeetEngine.load(acoustic, threads)
        case "ctc":
            raise no_engine()
