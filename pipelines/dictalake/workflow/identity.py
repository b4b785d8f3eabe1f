"""Names a run by everything that can change its words, and reads what its emissions mean."""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from dictalake.acoustic.checkpoint import Checkpoint, locate_decoding, locate_lm
from dictalake.acoustic.engines.base import EngineSettings, resolve_engine
from dictalake.acoustic.frame_grid import frame_grid
from dictalake.acoustic.frozen_files import DecoderFiles, FrozenFiles, freeze_files
from dictalake.acoustic.lasr.files import read_lasr_files
from dictalake.acoustic.slow_dtype import explain_slow_dtype
from dictalake.config.locations import resolve
from dictalake.config.sections import Config
from dictalake.decoding.base import name_decoder, open_decoder
from dictalake.decoding.hotwords import warn_of_hotwords
from dictalake.decoding.lm_file import find_hub_hash, find_known_hash, require_hash
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from dictalake.records import FrameGrid
from dictalake.transcript.provenance import Provenance, hash_file, make_provenance


class OutputSpec(NamedTuple):
    """The meaning of the emissions' columns, and the grid of their frames."""

    vocabulary: Vocabulary
    grid: FrameGrid


def find_decoder_files(config: Config) -> DecoderFiles:
    """The language model and the hotwords as they are now, each hashed once. Raises ConfigError for what cannot be read."""

    def freeze(key: str, location: str | None) -> FrozenFiles | None:
        return None if location is None else freeze_files(Path(resolve(location)), lambda _: hash_file(location, key))

    if config.acoustic.gives_text or config.decoding.kind != "beam":
        return DecoderFiles()
    search = locate_lm(config).decoding
    lm = freeze("decoding.lm", search.lm or None)
    if lm is not None:
        location = str(config.decoding.lm)
        require_hash(location, lm.sha256, find_known_hash(config.decoding) or find_hub_hash(Path(lm.path)))
    return DecoderFiles(lm, freeze("decoding.hotwords", search.hotwords))


def identify(config: Config, checkpoint: Checkpoint, files: DecoderFiles | None = None) -> Provenance:
    """Names the run and everything that can change its words, without opening weights, tokenizer or language model.

    ``files`` are the decoder's, if they were looked up before; they are not hashed again.
    """
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    identity = checkpoint.identity
    _warn_of_slow_dtype(config)
    if files is None:
        files = find_decoder_files(config)
    known = {"decoding.lm": files.lm, "decoding.hotwords": files.hotwords}
    settings: EngineSettings | None = None
    if config.acoustic.gives_text:
        settings = resolve_engine(config.acoustic)
        decoder = settings.name
    else:
        config = locate_lm(config)
        decoder = name_decoder(config.decoding)
    return make_provenance(
        config,
        run_id,
        model_id=identity.model_id,
        model_revision=identity.revision,
        model_sha256=identity.sha256,
        decoder=decoder,
        engine=None if settings is None else settings.hashed,
        libraries=None if settings is None else settings.libraries,
        file_hashes={key: found.sha256 for key, found in known.items() if found is not None},
    )


def _warn_of_slow_dtype(config: Config) -> None:
    """Warns the person who started the run. On a cluster, each row's provenance names the dtype that ran."""
    if config.ray.address is None and (warning := explain_slow_dtype(config.acoustic)) is not None:
        logging.getLogger("dictalake").warning(warning, extra={"event": "slow_dtype"})


def open_output_spec(config: Config, checkpoint: Checkpoint) -> OutputSpec | None:
    """The vocabulary and the grid; None for an engine that gives text. Raises ConfigError.

    It opens the decoder once, so that a bad one fails here and not in a worker. Models other than LASR take two seconds more,
    mostly for imports.
    """
    if config.acoustic.gives_text:
        return None
    spec = read_vocabulary(checkpoint)
    open_decoder(locate_decoding(config), spec.vocabulary)
    warn_of_hotwords(config.decoding, spec.vocabulary)
    return spec


def read_vocabulary(checkpoint: Checkpoint) -> OutputSpec:
    """The meaning of the columns of the model's emissions, and the grid of its frames; loads no weights.

    Raises ConfigError for a model without emissions.
    """
    if checkpoint.kind != "ctc":
        raise ConfigError(f"acoustic.kind = {checkpoint.kind} gives text, not emissions; this needs a CTC model")
    # First without transformers, which gives the same answer but takes two seconds to import.
    files = read_lasr_files(checkpoint.folder)
    if files is None:
        return _ask_transformers(checkpoint)
    vocabulary = Vocabulary.from_entries(files.entries, files.columns, files.blank_id, files.special_ids)
    return OutputSpec(vocabulary, files.grid)


def _ask_transformers(checkpoint: Checkpoint) -> OutputSpec:
    from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
        extractor = AutoFeatureExtractor.from_pretrained(checkpoint.folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a bare one for a damaged tokenizer.json
        raise ConfigError(
            f"acoustic.model: {checkpoint.folder.name}: its configuration, tokenizer or feature extractor cannot be read "
            f"({type(error).__name__}); are its files whole?"
        ) from None
    vocabulary = Vocabulary.from_tokenizer(tokenizer, config.vocab_size, config.pad_token_id)
    return OutputSpec(vocabulary, frame_grid(config, extractor))
