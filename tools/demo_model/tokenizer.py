"""The tokenizer: byte-level BPE over the synthetic text, digits by threes.

Text is cut as Llama 3 cuts it (llama.cpp calls this "llama-bpe"). The merges are learned on finer cuts,
between spaces, punctuation and letters; a space joins what follows it last of all. So a word has the
same pieces wherever it stands: `"Tarnok`, ` Tarnok`, `_Tarnok`.
"""

import json
import random
from collections import Counter

from conversations import make_conversation
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SIZE, SPACED = 4096, 1000
"""Tokens in all, and those among them that are another token after a space."""
NUMBERS_SAID = 400
"""As often every number of three digits is shown, so that each becomes one token."""
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPACE = "Ġ"
"""How byte-level BPE writes it."""
LLAMA3_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TRAINING_CUTS = r"\p{L}+|\p{N}{1,3}|[^\s\p{L}\p{N}]+|[\r\n]+|\s"


def train_tokenizer() -> Tokenizer:
    rng = random.Random(1)
    texts = ["".join(piece for piece, _ in make_conversation(rng, 40, 20).pieces) for _ in range(2000)]
    numbers = [" ".join(f"{number:03}" for number in range(1000))] * NUMBERS_SAID
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = _cut(TRAINING_CUTS)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - SPACED,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts + numbers, trainer)
    bpe = _with_spaces(bpe, texts)
    bpe.model.ignore_merges = True  # as llama.cpp has it with these cuts: a word that is a token is one
    bpe.pre_tokenizer = _cut(LLAMA3_CUTS)
    bpe.decoder = decoders.ByteLevel()
    return bpe


def _with_spaces(bpe: Tokenizer, texts: list[str]) -> Tokenizer:
    """The tokens that most often follow a space, as further tokens that begin with it."""
    following: Counter[str] = Counter()
    for text in bpe.encode_batch(texts):
        pairs = zip(text.tokens, text.tokens[1:], strict=False)
        following.update(piece for space, piece in pairs if space == SPACE and not piece.isdigit())
    described = json.loads(bpe.to_str())
    vocabulary, merges = described["model"]["vocab"], described["model"]["merges"]
    for piece, _ in following.most_common(SPACED):
        vocabulary[SPACE + piece] = len(vocabulary)
        merges.append([SPACE, piece])
    return Tokenizer.from_str(json.dumps(described))


def _cut(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
