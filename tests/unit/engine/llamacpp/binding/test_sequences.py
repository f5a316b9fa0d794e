"""What is said of each kind of model is what llama.cpp does with one."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mooring.core.errors import ModelUnreadable
from mooring.engine.llamacpp.binding import (
    ContextShape,
    Cutting,
    DecodeContext,
    Model,
    measure_state_size,
)
from mooring.testing import (
    TINY,
    TINY_HYBRID,
    TINY_LLAMA,
    TINY_RECURRENT,
    TINY_WINDOWED,
    Family,
    write_random_model,
)

SHAPES = {
    shape.family: shape for shape in (TINY, TINY_LLAMA, TINY_WINDOWED, TINY_RECURRENT, TINY_HYBRID)
}
FULL = [Family.QWEN2, Family.LLAMA]
STATE = [Family.MAMBA, Family.LFM2]
TOLERANCE = 0.05
"""The order of summation moves these logits by up to 0.01; a window that lacks ten tokens, by 0.2."""

Paths = dict[Family, Path]
Open = Callable[[Family], AbstractContextManager[DecodeContext]]


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    folder = tmp_path_factory.mktemp("families")
    return {
        family: write_random_model(folder / f"{family}.gguf", shape) for family, shape in SHAPES.items()
    }


@pytest.fixture
def open_context(paths: Paths) -> Open:
    @contextmanager
    def opened(family: Family) -> Iterator[DecodeContext]:
        model = Model(paths[family])
        shape = ContextShape(2048, 16, 512, kv_type="f16", flash_attention=False, threads=1)
        context = DecodeContext(model, shape)
        yield context
        context.close()
        model.close()

    return opened


def text(seed: int, tokens: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(300, 3000, tokens)]


PREFIX, QUESTION = text(1, 300), text(2, 20)


def evaluate(
    context: DecodeContext, tokens: list[int], position: int, sequence: int
) -> NDArray[np.float32]:
    """The last token's logits."""
    context.batch.clear()
    row = context.batch.add(tokens, position, sequence, logits=True)
    assert context.decode() == 0
    return context.logits(row).copy()


def assert_same(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("family", "cutting"),
    [
        (Family.QWEN2, Cutting.ANYWHERE),
        (Family.LLAMA, Cutting.ANYWHERE),
        (Family.GEMMA3, Cutting.WHOLE),
        (Family.MAMBA, Cutting.WHOLE),
        (Family.LFM2, Cutting.WHOLE),
    ],
)
def test_each_family_is_told_apart(paths: Paths, family: Family, cutting: Cutting) -> None:
    model = Model(paths[family])
    assert model.sequences.cutting is cutting
    assert model.sequences.survive_abort == model.sequences.repeat_last == (family not in STATE)
    model.close()


@pytest.mark.parametrize("family", Family)
def test_a_whole_sequence_moves_through_its_bytes(open_context: Open, family: Family) -> None:
    with open_context(family) as context:
        evaluate(context, PREFIX, 0, 0)
        expected = evaluate(context, QUESTION, len(PREFIX), 0)
        context.clear()
        evaluate(context, PREFIX, 0, 0)
        exported = context.export_sequence(0)
        after_export = evaluate(context, QUESTION, len(PREFIX), 0)
        assert context.import_sequence(3, exported)
        after_import = evaluate(context, QUESTION, len(PREFIX), 3)
    assert_same(after_export, expected)
    assert_same(after_import, expected)
    with open_context(family) as another:
        assert another.import_sequence(1, exported)
        assert_same(evaluate(another, QUESTION, len(PREFIX), 1), expected)


@pytest.mark.parametrize("family", FULL)
def test_full_attention_is_cut_at_any_token(open_context: Open, family: Family) -> None:
    with open_context(family) as context:
        evaluate(context, PREFIX[:123], 0, 0)
        expected = evaluate(context, QUESTION, 123, 0)
        context.clear()
        evaluate(context, PREFIX, 0, 0)
        exported = context.export_sequence(0)
        context.clear()
        assert context.import_sequence(0, exported)
        context.cut_sequence(0, 123)
        assert_same(evaluate(context, QUESTION, 123, 0), expected)


def test_a_window_is_cut_by_one_token_and_by_no_more(open_context: Open) -> None:
    """llama.cpp lets it happen; what is missing then shows in the answer alone."""
    with open_context(Family.GEMMA3) as context:
        evaluate(context, PREFIX, 0, 0)
        exported = context.export_sequence(0)
        far_off = []
        for end in (len(PREFIX) - 1, len(PREFIX) - 20):
            context.clear()
            evaluate(context, PREFIX[:end], 0, 0)
            expected = evaluate(context, QUESTION, end, 0)
            context.clear()
            assert context.import_sequence(0, exported)
            context.cut_sequence(0, end)
            assert context.last_position(0) == end - 1
            far_off.append(np.abs(evaluate(context, QUESTION, end, 0) - expected).max())
    assert far_off[0] < TOLERANCE < far_off[1]


@pytest.mark.parametrize("family", STATE)
def test_recurrent_state_is_not_cut(open_context: Open, family: Family) -> None:
    with open_context(family) as context:
        evaluate(context, PREFIX, 0, 0)
        context.cut_sequence(0, len(PREFIX) - 1)
        assert context.last_position(0) == len(PREFIX) - 1
        context.cut_sequence(0, 0)
        assert context.last_position(0) == -1


@pytest.mark.parametrize("family", Family)
def test_an_abort_spares_bystanders_where_it_is_said_to(open_context: Open, family: Family) -> None:
    """The batch's states are moved side by side; an abort can come between the notice and the move."""
    with open_context(family) as context:
        for sequence in (4, 9, 5):
            evaluate(context, text(sequence, 100), 0, sequence)
        before = context.export_sequence(9)
        context.batch.clear()
        for sequence in (4, 5):
            context.batch.add(QUESTION[:1], 100, sequence, logits=True)
        context.abort()
        assert context.decode() == 2
        context.clear_abort()
        assert context.last_position(9) == 99
        spared = bool((context.export_sequence(9) == before).all())
        assert spared == context.model.sequences.survive_abort


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("kv_type", ["f16", "f32"])
def test_the_size_of_a_state_is_known_beforehand(paths: Paths, family: Family, kv_type: str) -> None:
    model = Model(paths[family])
    size = measure_state_size(model, kv_type=kv_type, flash_attention=False)
    shape = ContextShape(1024, 2, 512, kv_type=kv_type, flash_attention=False, threads=1)
    context = DecodeContext(model, shape)
    for tokens in (1, 50, 64, 65, 300):
        context.cut_sequence(0, 0)
        evaluate(context, PREFIX[:tokens], 0, 0)
        assert context.export_sequence(0).size == size.of(tokens)
    context.close()
    model.close()


def test_a_kv_type_that_the_model_cannot_have_is_refused(paths: Paths) -> None:
    model = Model(paths[Family.QWEN2])
    with pytest.raises(ModelUnreadable, match="q8_0"):
        measure_state_size(model, kv_type="q8_0", flash_attention=False)
    model.close()
