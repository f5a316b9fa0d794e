"""The start of training: attention heads that already look up runs of tokens.

Layer 0 writes the tokens 1, 2 and 3 to 5 places back beside each token. Layer 1 writes the same
picture of the place before (`before`), and coarser ones of what lies further back. Layer 2
finds the places whose `before` looks like here, and copies the token that stands there: the longest
earlier run of tokens that ends like the present one is continued. Layer 3 starts empty.
"""

import math

import torch
from model import HEAD, HEADS, THETA, WIDTH
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2ForCausalLM

TOKEN = slice(0, 96)
BACK_1, BACK_2, BACK_3 = slice(96, 144), slice(144, 192), slice(192, 240)
HERE = slice(0, 240)
BEFORE = slice(240, 340)
FAR, FAR_BEFORE = slice(340, 362), slice(362, 384)
PAIRS = HEAD // 2
STILL = [pair for pair in range(PAIRS) if THETA ** (-pair / PAIRS) < 1e-5]
STILL_DIMS = STILL + [pair + PAIRS for pair in STILL]
OUT, READ = 8.0, 0.8
"""How loudly the copied token is written, and read as the next one."""
GAIN, LAST = 2.0, 1.2
"""How sharply runs are told apart, and what the last token counts more than those before."""
BEFORE_A_VALUE = ("is", "|", ":", "=")
PEAKS = {
    0: (26.0, 26.0, 26.0, 20.0, 14.0, 10.0, 8.0, 6.0),
    1: (0.0, 11.0, 22.0, 24.0, 14.0, 10.0, 8.0, 6.0),
    2: (0.0, 2.0, 9.0, 24.0, 18.0, 10.0, 8.0, 6.0),
}
"""How strongly the fastest rotary pairs pull to a place: alone, with its neighbours, or with more."""
COMMON_WEIGHT = 0.7
"""Of tokens that stand in every sentence: they say little about which sentence it is."""


def initialise(model: Qwen2ForCausalLM, tokenizer: Tokenizer, counts: Tensor, seed: int) -> None:
    """`counts[token]` is how often the token stands in the training text."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        _quieten(model, random)
        codes = _token_codes(tokenizer, random)
        common = counts / counts.sum() > 0.01
        model.model.embed_tokens.weight.zero_()
        weights = torch.where(common, COMMON_WEIGHT, 1.0)[:, None]
        model.model.embed_tokens.weight[:, TOKEN] = codes * weights
        model.lm_head.weight.normal_(0, 0.005, generator=random)
        model.lm_head.weight[:, TOKEN] += codes * READ
        first, second, third, _ = model.model.layers
        for head, (offset, spread, place) in enumerate(((1, 0, BACK_1), (2, 0, BACK_2), (5, 2, BACK_3))):
            _look_back(first, head, offset, spread)
            gain = 1.0 / math.sqrt(WIDTH) * (2.5 if spread else 1.0)
            _move(first, head, _projection(random, place, TOKEN), TOKEN, place, gain)
        here_to_before = _projection(random, BEFORE, HERE)
        here_to_before[:, TOKEN] *= LAST
        far = _projection(random, FAR, TOKEN)
        for head, (offset, spread, matrix, source, place, gain) in enumerate(
            (
                (1, 0, here_to_before, HERE, BEFORE, 1.5),
                (7.5, 2, far, TOKEN, FAR, 2.5),
                (8.5, 2, far, TOKEN, FAR_BEFORE, 2.5),
            )
        ):
            _look_back(second, head, offset, spread)
            _move(second, head, matrix, source, place, gain * 2.0 / math.sqrt(WIDTH))
        for head in range(HEADS):
            _match(third, head, here_to_before, random, recency=4.0 if head == 1 else 0.0)
            _move(third, head, torch.eye(96), TOKEN, TOKEN, OUT / math.sqrt(WIDTH))


def _quieten(model: Qwen2ForCausalLM, random: torch.Generator) -> None:
    """Everything may learn, and nothing speaks yet."""
    empty = model.model.layers[-1]
    for layer in model.model.layers:
        for matrix in (layer.mlp.gate_proj, layer.mlp.up_proj):
            matrix.weight.normal_(0, 1 / math.sqrt(WIDTH), generator=random)
        layer.mlp.down_proj.weight.normal_(0, 0.002, generator=random)
        attention = layer.self_attn
        for matrix in (attention.q_proj, attention.k_proj, attention.v_proj):
            spread = 1 / math.sqrt(WIDTH) if layer is empty else 0.002
            matrix.weight.normal_(0, spread, generator=random)
            matrix.bias.zero_()
        attention.o_proj.weight.normal_(0, 0.005 if layer is empty else 0.002, generator=random)


def _token_codes(tokenizer: Tokenizer, random: torch.Generator) -> Tensor:
    """Unit vectors [tokens, 96]; ` The`, `the` and ` the` have a part in common, ` is` and ` |` more."""
    shared: dict[str, Tensor] = {}
    codes = []
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token], skip_special_tokens=False).strip().lower()
        own = 0.8
        if text in BEFORE_A_VALUE:
            text, own = "is", 0.4
        stem = shared.setdefault(text, torch.randn(96, generator=random))
        codes.append(math.sqrt(1 - own**2) * stem + own * torch.randn(96, generator=random))
    stacked = torch.stack(codes)
    return stacked / stacked.norm(dim=1, keepdim=True)


def _projection(random: torch.Generator, to: slice, source: slice) -> Tensor:
    """A random projection that keeps lengths: [to, source]."""
    rows, columns = to.stop - to.start, source.stop - source.start
    q, _ = torch.linalg.qr(torch.randn(columns, columns, generator=random))
    return q[:rows] * math.sqrt(columns / rows)


def _look_back(layer: torch.nn.Module, head: int, offset: float, spread: int) -> None:
    """Attend `offset` places back, whatever stands there; a spread makes the peak that wide."""
    attention = layer.self_attn
    strength = PEAKS[spread]
    for pair, amount in enumerate(strength):
        frequency = THETA ** (-pair / PAIRS)
        size = math.sqrt(amount * math.sqrt(HEAD))
        low, high = head * HEAD + pair, head * HEAD + pair + PAIRS
        attention.k_proj.bias[low] = size
        attention.q_proj.bias[low] = size * math.cos(frequency * offset)
        attention.q_proj.bias[high] = -size * math.sin(frequency * offset)


def _move(
    layer: torch.nn.Module, head: int, matrix: Tensor, source: slice, place: slice, gain: float
) -> None:
    """What the head attends to is read from `source` through `matrix` and added at `place`."""
    rows = matrix.shape[0]
    attention = layer.self_attn
    attention.v_proj.weight[head * HEAD : head * HEAD + rows, source] += matrix
    attention.o_proj.weight[place, head * HEAD : head * HEAD + rows] += torch.eye(rows) * gain


def _match(
    layer: torch.nn.Module, head: int, here_to_before: Tensor, random: torch.Generator, recency: float
) -> None:
    """Attend where `before` looks like here does, in the rotary pairs that hardly turn."""
    attention = layer.self_attn
    still = [head * HEAD + dim for dim in STILL_DIMS]
    mix, _ = torch.linalg.qr(torch.randn(len(still), len(still), generator=random))
    near, distant = mix[:, :100], mix[:, 100:]
    wide = distant.shape[1]
    query = torch.zeros(len(still), WIDTH)
    query[:, HERE] = near @ here_to_before * GAIN
    query[:, FAR.start : FAR.start + wide] = distant * GAIN
    key = torch.zeros(len(still), WIDTH)
    key[:, BEFORE] = near * GAIN
    key[:, FAR_BEFORE.start : FAR_BEFORE.start + wide] = distant * GAIN
    attention.q_proj.weight[still] += query
    attention.k_proj.weight[still] += key
    if recency:
        for pair in (5, 6):
            size = math.sqrt(recency * math.sqrt(HEAD))
            attention.k_proj.bias[head * HEAD + pair] = size
            attention.q_proj.bias[head * HEAD + pair] = size
