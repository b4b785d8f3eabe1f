"""Models of other engines with random weights, saved as the folders that ``acoustic.model`` takes."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    ParakeetCTCConfig,
    ParakeetEncoderConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetForTDT,
    ParakeetProcessor,
    ParakeetTDTConfig,
    ParakeetTokenizer,
    Qwen2Tokenizer,
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRForConditionalGeneration,
    Qwen3ASRProcessor,
)

TEXTS = ["No acute fracture of the left wrist.", "Lungs are clear, no effusion.", "Follow up in two weeks."] * 10
_AUDIO = {"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}
_CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *_AUDIO.values())
# In the words of Qwen3-ASR's own template: a system turn, the sound, and the beginning of the answer.
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_start|><|audio_pad|><|audio_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
)


def save_random_qwen_asr(folder: Path, seed: int = 0) -> Path:
    """A Qwen3-ASR of a few thousand weights that writes other nonsense about other sounds."""
    torch.manual_seed(seed)
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    trained.train_from_iterator(TEXTS, trainer)
    trained.model.save(str(_made(folder)))
    tokenizer = Qwen2Tokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        unk_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=_AUDIO | {"im_start_token": "<|im_start|>"},
    )
    tokenizer.add_tokens(["<asr_text>"])
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _CHAT}
    size = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64}
    config = Qwen3ASRConfig(
        audio_config={
            "model_type": "qwen3_asr_encoder",
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "d_model": 32,
            "output_dim": 32,
            "downsample_hidden_size": 8,
            "initializer_range": 0.5,
        },
        text_config={
            "model_type": "qwen3",
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "initializer_range": 0.4,
            "tie_word_embeddings": False,
            **size,
        },
        audio_token_id=ids["<|audio_pad|>"],
        pad_token_id=ids["<|endoftext|>"],
        eos_token_id=[ids["<|im_end|>"]],
        tie_word_embeddings=False,
    )
    model = Qwen3ASRForConditionalGeneration(config).eval()
    with torch.no_grad():  # what is heard counts as much as what was written
        for weight in model.model.multi_modal_projector.parameters():
            weight.mul_(20)
    model.save_pretrained(folder)
    Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(), tokenizer, chat_template=_TEMPLATE).save_pretrained(folder)
    return folder


def save_random_parakeet(folder: Path, seed: int = 0) -> Path:
    """A Parakeet-CTC of a few thousand weights; its blank is the last of its entries, as in NVIDIA's."""
    torch.manual_seed(seed)
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.decoder = decoders.Metaspace()
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>"], show_progress=False))
    trained.add_special_tokens(["<pad>"])
    blank = trained.token_to_id("<pad>")
    encoder = ParakeetEncoderConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        subsampling_conv_channels=16,
        initializer_range=0.2,
    )
    config = ParakeetCTCConfig(vocab_size=blank + 1, pad_token_id=blank, encoder_config=encoder.to_dict())
    ParakeetForCTC(config).eval().save_pretrained(folder)
    tokenizer = ParakeetTokenizer(tokenizer_object=trained, unk_token="<unk>", pad_token="<pad>")
    ParakeetProcessor(ParakeetFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


def save_random_parakeet_tdt(folder: Path, seed: int = 0) -> Path:
    """A Parakeet-TDT of a few thousand weights that writes other nonsense about other sounds."""
    torch.manual_seed(seed)
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.decoder = decoders.Metaspace()
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>"], show_progress=False))
    trained.add_special_tokens(["<pad>", "<blank>"])
    blank, pad = trained.token_to_id("<blank>"), trained.token_to_id("<pad>")
    encoder = ParakeetEncoderConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        subsampling_conv_channels=16,
        initializer_range=0.2,
    )
    config = ParakeetTDTConfig(
        vocab_size=blank + 1,
        blank_token_id=blank,
        pad_token_id=pad,
        decoder_hidden_size=16,
        num_decoder_layers=1,
        max_symbols_per_step=3,
        initializer_range=0.4,
        encoder_config=encoder.to_dict(),
    )
    model = ParakeetForTDT(config).eval()
    with torch.no_grad():
        model.encoder_projector.weight.mul_(30)  # what is heard counts as much as what was written
        model.joint.head.bias[config.vocab_size] = -1000.0  # a duration of 0: random weights would stay at the first frame
        starts = [id for piece, id in trained.get_vocab().items() if piece.startswith("▁")]
        model.joint.head.bias[starts] = 5.0
    model.generation_config = GenerationConfig(decoder_start_token_id=blank, pad_token_id=pad)
    model.save_pretrained(folder)
    tokenizer = ParakeetTokenizer(tokenizer_object=trained, unk_token="<unk>", pad_token="<pad>")
    ParakeetProcessor(ParakeetFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
