"""The tokenizer: byte-level BPE over the synthetic text, digits by threes.

At use, text is cut as Llama 3 cuts it (llama.cpp calls this "llama-bpe"). At training it is cut finer,
between punctuation and letters, so that `"Tarnok` and ` Tarnok` share their pieces.
"""

import random

from conversations import make_conversation
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SIZE = 3584
NUMBERS_SAID = 400
"""As often every number of three digits is shown, so that each becomes one token."""
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA3_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TRAINING_CUTS = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|[\r\n]+|\s"


def train_tokenizer() -> Tokenizer:
    rng = random.Random(1)
    texts = ["".join(piece for piece, _ in make_conversation(rng, 40, 20).pieces) for _ in range(2000)]
    texts += [" ".join(f"{number:03}" for number in range(1000))] * NUMBERS_SAID
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = _cut(TRAINING_CUTS)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.model.ignore_merges = True  # as llama.cpp has it with these cuts: a word that is a token is one
    bpe.pre_tokenizer = _cut(LLAMA3_CUTS)
    bpe.decoder = decoders.ByteLevel()
    return bpe


def _cut(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
