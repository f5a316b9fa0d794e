"""A Hugging Face tokenizer says what llama.cpp's says of the same vocabulary."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.core.errors import ModelUnreadable
from mooring.engine.llamacpp.binding import Model
from mooring.engine.vllm.vocabulary import Vocabulary
from mooring.testing import TINY_WIDE_HEADS, write_random_folder, write_random_model

TEXTS = st.lists(
    st.sampled_from(
        ["<|im_start|>", "<|im_end|>", "<tool_call>", "Berth ", "\n\n", " ", "é", "船", "🙂"]
    )
    | st.text(max_size=12)
).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_folder(tmp_path_factory.mktemp("folder"), TINY_WIDE_HEADS)


@pytest.fixture(scope="module")
def ours(folder: Path) -> Vocabulary:
    return Vocabulary(folder)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    model = Model(write_random_model(path, TINY_WIDE_HEADS))
    yield model
    model.close()


def test_control_tokens_and_pieces_are_the_same(ours: Vocabulary, theirs: Model) -> None:
    assert ours.control_tokens == theirs.control_tokens
    assert ours.adds_bos == theirs.adds_bos
    assert ours.special_text("eos") == theirs.special_text("eos")
    for token in range(theirs.vocab_size):
        for control in (False, True):
            assert ours.piece(token, control=control) == theirs.piece(token, control=control)
    assert ours.longest_piece_bytes == theirs.longest_piece_bytes
    assert ours.piece(10_000_000) == b""


@given(TEXTS, st.booleans())
def test_texts_become_the_same_tokens(ours: Vocabulary, theirs: Model, text: str, control: bool) -> None:
    found = ours.tokenize(text, add_bos=False, control=control)
    assert found == theirs.tokenize(text, add_bos=False, control=control)


@given(TEXTS)
def test_pieces_make_up_the_text(ours: Vocabulary, text: str) -> None:
    tokens = ours.tokenize(text, add_bos=False, control=False)
    assert b"".join(map(ours.piece, tokens)) == text.encode()


def describe(folder: Path, **changes: object) -> Path:
    """A tokenizer of a few tokens, written as `changes` say."""
    folder.mkdir(exist_ok=True)
    pieces = ["\u2581", "\u2581ship", "s", "<0x0A>", "<0xF0>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": True}
    description = {"version": "1.0", "model": model, "added_tokens": []} | changes
    (folder / "tokenizer.json").write_text(json.dumps(description))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def test_sentencepiece_writes_spaces_and_bytes_in_its_own_way(tmp_path: Path) -> None:
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    vocabulary = Vocabulary(describe(tmp_path, decoder=decoder))
    assert [vocabulary.piece(token) for token in range(5)] == [b" ", b" ship", b"s", b"\n", b"\xf0"]


def test_broken_and_unknown_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match=r"tokenizer\.json"):
        Vocabulary(tmp_path)
    with pytest.raises(ModelUnreadable, match="WordPiece"):
        Vocabulary(describe(tmp_path, decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}))
    with pytest.raises(ModelUnreadable, match="missing"):
        Vocabulary(describe(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelUnreadable, match="cannot read the tokenizer"):
        Vocabulary(tmp_path)
