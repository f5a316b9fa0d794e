"""The start of training: attention heads that already look up runs of tokens.

Layers 0 and 1 write the codes of the ten tokens before a place beside its own, each into a slot (see
`places.py`). Two heads of layer 2 compare the slots of each place seen so far with the tokens up to
here, one token of offset between them: they find where the longest run of tokens like the present one
went on, and say how. What all tokens of a run would count together is known from the run itself, and
where a value is to follow, the first token of the text attracts with a third of a token less than that.
So a key that has not been there before, all of it, ends at the first token, which stands for "not". The
third head prefers what is near. One more head, of layer 1, begins a tool call: where the tool's name
and where the first argument belong, it says what follows "call" and "with" in the question. The layers
after these start empty.
"""

import math

import torch
from model import HEAD, HEADS, THETA, WIDTH
from places import (
    ARGUMENTS,
    CALL,
    CODE,
    CODE_NORM,
    CODES,
    CONTROL,
    DECIDING,
    DECIDING_NORM,
    ENDING,
    FAR_SLOT,
    MARK_NORM,
    MASS,
    MASS_NORM,
    NEAR_SLOTS,
    NEWLINE,
    OPENING,
    SLOTS,
    TOKEN,
    WITH,
    WORD,
    embed,
    slot,
)
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2ForCausalLM

PAIRS = HEAD // 2
STILL = [pair for pair in range(PAIRS) if THETA ** (-pair / PAIRS) < 1e-5]
STILL_DIMS = STILL + [pair + PAIRS for pair in STILL]
"""The dimensions of a head that the rotary embedding does not turn: they compare at any distance."""
assert len(STILL_DIMS) >= SLOTS * CODE + 2
OUT, READ = 8.0, 0.8
"""How loudly the copied token is written, and read as the next one."""
PEAK = (26.0, 26.0, 26.0, 20.0, 14.0, 10.0, 8.0, 6.0)
"""How strongly the fastest rotary pairs pull to a place."""
NEAR_PAIRS, NEARNESS = (3, 4, 5, 6), 4.0
"""Which rotary pairs prefer near places, and how strongly."""
GAIN = 10.0
"""What a token that is the same adds to an attention logit."""
WEIGHTS = (1.0,) * 8 + (0.8,) * 2
"""What a token of a run counts, by how far back it is: when an answer begins, the last places hold the
end of the question."""
BEYOND = 0.75
"""What a token there counts on average, which belongs to no run of the answer's."""
MARGIN = 0.35
"""Of the tokens that make up a run, this much may be missing before it counts as another run."""
AT_ITSELF = 0.3
"""The first token is the one with turns' beginnings all around it; this share is for being one."""
ELSEWHERE = 3.0
"""How many tokens of a run are held against "nothing" where no value is to follow."""
AT_ENDING = 0.7
"""What share of a run's tokens is held against a place where a question or a line ends."""
POINTING, RESTING, LATELY = 40.0, 16.0, 5.0
"""Attention logits of the head that begins a call: to its place, to none, and for being near."""
LATELY_PAIRS = (4, 5, 6, 7)
NOISE = 0.0003
EMPTY = (1 / math.sqrt(WIDTH), 0.005)
"""Spreads of the attention weights of a layer that is to learn everything: into it, and out of it."""


def initialise(model: Qwen2ForCausalLM, tokenizer: Tokenizer, counts: Tensor, seed: int) -> None:
    """`counts[token]` is how often the token stands in the training text."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        _quieten(model, random)
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedding.copy_(embed(tokenizer, counts, random))
        identities = embedding[:, TOKEN].clone()
        head.normal_(0, 0.005, generator=random)
        head[:, TOKEN] += identities * READ
        turn, no = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("Ġnot")
        embedding[turn, TOKEN] = identities[no]
        first, second, third, *_ = model.model.layers
        filled = 2.0  # of a place's energy: identity and slot 0, each a unit
        for index in range(HEADS):
            _look_back(first, index, 1 + index)
            _move(first, index, slot(0), slot(1 + index), filled)
        filled += HEADS
        for index, back in enumerate((NEAR_SLOTS, 2 * NEAR_SLOTS)):
            _look_back(second, index, back)
            for number in range(min(NEAR_SLOTS, SLOTS + 1 - back)):
                source = slice(slot(number).start, slot(number).start + FAR_SLOT)
                _move(second, index, source, slot(back + number), filled, at=number * FAR_SLOT)
        _begin_calls(second, 2, identities[no], filled)
        filled += SLOTS - HEADS
        for index in range(HEADS):
            _match(third, index, CODES[index % 2], filled)
            _move(third, index, TOKEN, TOKEN, filled, loudness=OUT)
        for index in range(2):
            _or_to_nothing(third, index, filled)
        _pull_near(third, 2)


def _quieten(model: Qwen2ForCausalLM, random: torch.Generator) -> None:
    """Feed-forward parts say nothing yet; attention is zero, or noise where it is to learn from it."""
    for number, layer in enumerate(model.model.layers):
        for matrix in (layer.mlp.gate_proj, layer.mlp.up_proj):
            matrix.weight.normal_(0, 1 / math.sqrt(WIDTH), generator=random)
        layer.mlp.down_proj.weight.zero_()
        attention = layer.self_attn
        # Layers 0 and 1 do nothing but what is set up, layer 2 hardly more.
        inward, outward = ((0.0, 0.0), (0.0, 0.0), (NOISE, NOISE), EMPTY, EMPTY)[number]
        for matrix in (attention.q_proj, attention.k_proj, attention.v_proj):
            matrix.weight.normal_(0, inward, generator=random)
            matrix.bias.zero_()
        attention.o_proj.weight.normal_(0, outward, generator=random)


def _look_back(layer: torch.nn.Module, head: int, offset: int) -> None:
    """Attend `offset` places back, whatever stands there."""
    attention = layer.self_attn
    for pair, amount in enumerate(PEAK):
        frequency = THETA ** (-pair / PAIRS)
        size = math.sqrt(amount * math.sqrt(HEAD))
        low, high = head * HEAD + pair, head * HEAD + pair + PAIRS
        attention.k_proj.bias[low] = size
        attention.q_proj.bias[low] = size * math.cos(frequency * offset)
        attention.q_proj.bias[high] = -size * math.sin(frequency * offset)


def _move(
    layer: torch.nn.Module,
    head: int,
    source: slice,
    place: slice,
    energy: float,
    loudness: float = 1.0,
    at: int = 0,
) -> None:
    """What stands at `source` where the head attends is added at `place`, by its values from `at` on.

    `energy` is that of a place's vector, which the layer's normalisation brings to WIDTH.
    """
    size = source.stop - source.start
    attention = layer.self_attn
    own = slice(head * HEAD + at, head * HEAD + at + size)
    attention.v_proj.weight[own, source] += torch.eye(size)
    attention.o_proj.weight[place, own] += torch.eye(size) * loudness * math.sqrt(energy / WIDTH)


def _match(layer: torch.nn.Module, head: int, code: slice, energy: float) -> None:
    """Attend where the tokens before are those up to here."""
    attention = layer.self_attn
    loud = math.sqrt(GAIN * math.sqrt(HEAD) * energy / WIDTH) / CODE_NORM
    still = iter(head * HEAD + dim for dim in STILL_DIMS)
    for number in range(SLOTS):
        for dim in range(code.start, code.stop):
            row = next(still)
            attention.q_proj.weight[row, slot(number).start + dim] += loud * WEIGHTS[number]
            attention.k_proj.weight[row, slot(number + 1).start + dim] += loud


def _or_to_nothing(layer: torch.nn.Module, head: int, energy: float) -> None:
    """Attend to the first token of all where a run is not there before, and a value is to follow."""
    attention = layer.self_attn
    query, key = attention.q_proj.weight, attention.k_proj.weight
    full = math.sqrt(GAIN * math.sqrt(HEAD))
    loud = full * math.sqrt(energy / WIDTH)
    run, ending = (head * HEAD + dim for dim in STILL_DIMS[SLOTS * CODE :][:2])
    for number in range(SLOTS):
        query[run, slot(number).start + MASS] += loud / MASS_NORM * WEIGHTS[number]
        # Two marks stand before an answer, two places from each other: each takes half.
        query[run, slot(number).start + CONTROL] -= loud * BEYOND * max(0, SLOTS - 2 - number) / 2
        key[run, slot(number + 1).start + CONTROL] += loud * (1 - AT_ITSELF) / SLOTS
    query[ending] = query[run]
    query[run, DECIDING] += loud * ELSEWHERE / DECIDING_NORM
    attention.q_proj.bias[run] -= full * (MARGIN + ELSEWHERE)
    key[run, slot(0).start + CONTROL] += loud * AT_ITSELF
    for mark in (ENDING, slot(1).start + NEWLINE):
        key[ending, mark] -= loud * AT_ENDING


def _pull_near(layer: torch.nn.Module, head: int) -> None:
    """Of equals, the nearer ones."""
    attention = layer.self_attn
    for pair in NEAR_PAIRS:
        size = math.sqrt(NEARNESS * math.sqrt(HEAD))
        attention.k_proj.bias[head * HEAD + pair] = size
        attention.q_proj.bias[head * HEAD + pair] = size


def _begin_calls(layer: torch.nn.Module, head: int, nothing: Tensor, energy: float) -> None:
    """Say the tool's name at its place in a call, and the first parameter at its own.

    Elsewhere it attends to a turn's mark.

    A mark is embedded with the identity `nothing`; it is taken away from what is read there.
    """
    attention = layer.self_attn
    scale = math.sqrt(energy / WIDTH)
    loud, rest = math.sqrt(POINTING * math.sqrt(HEAD)), math.sqrt(RESTING * math.sqrt(HEAD))
    q, k = attention.q_proj, attention.k_proj
    still = iter(head * HEAD + dim for dim in STILL_DIMS)
    name, argument, resting = next(still), next(still), next(still)
    at_name, at_argument = slot(3).start + OPENING, slot(0).start + ARGUMENTS
    for row, trigger in ((name, at_name), (argument, at_argument)):
        q.weight[row, trigger] += loud * scale / MARK_NORM
    k.weight[name, slot(1).start + CALL] += loud * scale / MARK_NORM
    for feature, share in (
        (slot(1).start + WITH, 1.0),  # `with city: "Brel"`
        (slot(2).start + WITH, 0.5),  # `with {"city": "Brel"}`: both of these
        (slot(1).start + ARGUMENTS, 0.5),
        (at_argument, -1.0),
    ):
        k.weight[argument, feature] += share * loud * scale / MARK_NORM
    size = math.sqrt(LATELY * math.sqrt(HEAD))
    for pair in LATELY_PAIRS:
        k.bias[head * HEAD + pair] += size
        for trigger in (at_name, at_argument):
            q.weight[head * HEAD + pair, trigger] += size * scale / MARK_NORM
    q.bias[resting] += rest
    k.weight[resting, slot(0).start + CONTROL] += rest * scale
    k.weight[resting, ENDING] -= rest * scale  # `<|im_end|>` is another mark, with its own identity
    word = slice(TOKEN.start, TOKEN.start + WORD)  # not whether a space stands before it
    _move(layer, head, word, word, energy, loudness=4 * OUT)
    values = slice(head * HEAD, head * HEAD + WORD)
    attention.v_proj.weight[values, slot(0).start + CONTROL] -= nothing[:WORD]
