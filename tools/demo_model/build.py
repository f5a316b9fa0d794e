"""Builds the bundled model, src/mooring/assets/demo.gguf: `python tools/demo_model/build.py`.

Its tokenizer is trained on the bundled manual; its weights are random (fixed seed), so what it says
means nothing. Needs `pip install -e '.[models]' tokenizers`.
"""

from pathlib import Path

import gguf
import tokenizers

from mooring.testing import DEMO, Vocabulary, write_random_model

HERE = Path(__file__).parent
ASSETS = HERE.parents[1] / "src" / "mooring" / "assets"
VOCABULARY_SIZE = 4096
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train_vocabulary(text: str) -> Vocabulary:
    """A byte-level BPE of at most VOCABULARY_SIZE tokens; every byte is a token, so any text encodes."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=CONTROL,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(text.splitlines(keepends=True), trainer)
    tokens = sorted(bpe.get_vocab(), key=bpe.get_vocab().__getitem__)
    directory = HERE / "build"
    directory.mkdir(exist_ok=True)
    _, merges = bpe.model.save(str(directory))
    return Vocabulary(
        tokens=tokens,
        types=[
            gguf.TokenType.CONTROL if token in CONTROL else gguf.TokenType.NORMAL for token in tokens
        ],
        merges=Path(merges).read_text("utf-8").splitlines()[1:],
        eos=tokens.index("<|im_end|>"),
        chat_template=(HERE / "chat_template.jinja").read_text("utf-8"),
        pre="gpt-2",
    )


if __name__ == "__main__":
    vocabulary = train_vocabulary((ASSETS / "manual.md").read_text("utf-8"))
    path = write_random_model(
        ASSETS / "demo.gguf",
        DEMO,
        vocabulary=vocabulary,
        weights=gguf.GGMLQuantizationType.Q8_0,
        seed=20_240_701,
    )
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(vocabulary.tokens)} tokens")
