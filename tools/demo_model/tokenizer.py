"""The tokenizer: byte-level BPE over the synthetic text, digits one by one.

At use, text is cut as Qwen2 cuts it (llama.cpp calls this "qwen2"). At training it is cut finer,
between punctuation and letters, so that `"Tarnok` and ` Tarnok` share their pieces.
"""

import random

from conversations import make_conversation
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SIZE = 2560
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN2_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TRAINING_CUTS = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|[\r\n]+|\s"


def train_tokenizer() -> Tokenizer:
    rng = random.Random(1)
    texts = ["".join(piece for piece, _ in make_conversation(rng, 40, 20).pieces) for _ in range(2000)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = _cut(TRAINING_CUTS)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.pre_tokenizer = _cut(QWEN2_CUTS)
    bpe.decoder = decoders.ByteLevel()
    return bpe


def _cut(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
