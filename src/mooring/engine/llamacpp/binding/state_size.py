"""How many bytes the state of a sequence takes, asked of llama.cpp itself.

Not reckoned from the metadata: layers differ in it, and llama.cpp does not tell how.
"""

from dataclasses import dataclass

from llama_cpp import llama_cpp as lib

from mooring.engine.llamacpp.binding.context import ContextShape, DecodeContext
from mooring.engine.llamacpp.binding.model import Model

_PARTIAL_ONLY = 1  # llama.h: only what is not kept for every token: windows and recurrent state
_CELLS = 256


@dataclass(frozen=True)
class StateSize:
    """Bytes of an exported sequence, which are also about those it takes in the buffer."""

    constant: int
    """Header, and recurrent state where the model has one."""
    per_token: int
    """Of the layers that remember every token."""
    per_token_in_window: int
    """Of the layers that remember the last `window` tokens; 0 when there are none."""
    window: int

    def of(self, tokens: int) -> int:
        """Bytes of a sequence of so many tokens."""
        in_window = self.per_token_in_window * min(tokens, self.window)
        return self.constant + self.per_token * tokens + in_window


def measure_state_size(model: Model, *, kv_type: str, flash_attention: bool) -> StateSize:
    """Evaluate two tokens in a context of their own, and see what each of them adds.

    With one thread: OpenMP keeps threads for each thread that calls it, and once there are more of them
    than processors, none waits awake for the next step any more. Small models then decode at a quarter
    of their speed.
    """
    shape = ContextShape(
        cells=_CELLS,
        sequences=1,
        batch_tokens=2,
        kv_type=kv_type,
        flash_attention=flash_attention,
        threads=1,
    )
    context = DecodeContext(model, shape)
    try:
        whole, partial = [], []
        for position in range(2):
            context.batch.clear()
            context.batch.add([0], position, 0, logits=False)
            result = context.decode()
            assert result == 0, result
            whole.append(_size(context, 0))
            partial.append(_size(context, _PARTIAL_ONLY))
    finally:
        context.close()
    # A model that attends to everything has no part: llama.cpp then gives the whole for it.
    windowed = partial[1] - partial[0] if model.window else 0
    both = whole[1] - whole[0]
    return StateSize(
        constant=whole[0] - both,
        per_token=both - windowed,
        per_token_in_window=windowed,
        window=model.window,
    )


def _size(context: DecodeContext, flags: int) -> int:
    return int(lib.llama_state_seq_get_size_ext(context.handle, 0, flags))
