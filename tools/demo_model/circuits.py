"""The start of training: attention heads that already look up runs of tokens.

Each token has an identity, for saying it, and two short codes, for comparing it. Layers 0 and 1 write
the codes of the nine tokens before a place beside it, each into a slot of its own. Two heads of layer 2
compare the slots of each place seen so far with the tokens up to here, one token of offset between them:
they find where the longest run of tokens like the present one went on, and say how. Function words
hardly count. What all tokens of a run would count together is known from the run itself, and where a
value is to follow, the first token of the text attracts with a third of a token less than that. So a
key that has not been there before, all of it, ends at the first token, which stands for "not". The
third head prefers what is near. One more head, of layer 1, begins a tool call: where the tool's name
and where the first argument belong, it says what follows "call" and "with" in the question. The layers
after these start empty.
"""

import math

import torch
from model import HEAD, HEADS, THETA, WIDTH
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2ForCausalLM

IDENTITY = 96
WORD = 64
"""The dimensions of it that `the`, ` the` and ` The` have in common."""
CODE = 10
"""Dimensions of one code. A head compares with one of two: what one confuses, the other tells apart."""
CODES = (slice(0, CODE), slice(CODE, 2 * CODE))
MASS, COMMON, CONTROL, NEWLINE, CALL, WITH, OPENING, ARGUMENTS = range(2 * CODE, 2 * CODE + 8)
"""In a slot: how much the token counts, that it is a function word, a turn's mark, the end of a line, or
one of MARKED."""
SLOT = 2 * CODE + 8
SLOTS = 9
TOKEN = slice(0, IDENTITY)
PAIRS = HEAD // 2
STILL = [pair for pair in range(PAIRS) if THETA ** (-pair / PAIRS) < 1e-5]
STILL_DIMS = STILL + [pair + PAIRS for pair in STILL]
OUT, READ = 8.0, 0.8
"""How loudly the copied token is written, and read as the next one."""
NEAR_PAIRS, NEARNESS = (3, 4, 5, 6), 4.0
"""Which rotary pairs prefer near places, and how strongly."""
GAIN = 10.0
"""What a token that is the same adds to an attention logit."""
MARGIN = 0.35
"""Of the tokens that make up a run, this much may be missing before it counts as another run."""
AT_ITSELF = 0.3
"""The first token is the one with turns' beginnings all around it; this share is for being one."""
CODE_NORM, MASS_NORM = 0.65, 0.4
COMMON_SHARE = 0.3
"""What is left of a function word's code."""
BEFORE_A_VALUE = ("is", "|", ":", "=", '":')
MARKED = {CALL: ("Call", " call"), WITH: (" with",), OPENING: ('{"',), ARGUMENTS: (' {"',)}
"""What stands before a tool's name and before its arguments, in a question and in a call."""
MARK_NORM = 0.3
POINTING, RESTING, LATELY = 40.0, 16.0, 5.0
"""Attention logits of the head that begins a call: to its place, to none, and for being near."""
LATELY_PAIRS = (4, 5, 6, 7)
NOISE = 0.0003
_EMPTY = (1 / math.sqrt(WIDTH), 0.005)
"""Spreads of the attention weights of a layer that is to learn everything: into it, and out of it."""
PEAK = (26.0, 26.0, 26.0, 20.0, 14.0, 10.0, 8.0, 6.0)
"""How strongly the fastest rotary pairs pull to a place."""


def slot(number: int) -> slice:
    """Of the token so many places back; 0 is the token itself."""
    start = IDENTITY + number * SLOT
    return slice(start, start + SLOT)


ENDING = slot(SLOTS).stop
"""That a token ends a question: it follows all the words of the key, and is not the value."""
ENDINGS = ("<|im_end|>", "?", "?<", "\n")
AT_ENDING = 0.7
DECIDING = ENDING + 1
"""That a value follows, or that there is none: only there may a run end at the first token."""
DECIDERS = ("is", "in", "from", "earns", "at", "costs", "means")
DECIDING_NORM, ELSEWHERE = 0.3, 3.0
"""How loud that mark is, and how many tokens of a run are held against "nothing" without it."""
assert DECIDING < WIDTH
assert len(STILL_DIMS) >= SLOTS * CODE + 2


def initialise(model: Qwen2ForCausalLM, tokenizer: Tokenizer, counts: Tensor, seed: int) -> None:
    """`counts[token]` is how often the token stands in the training text."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        _quieten(model, random)
        identities = _identities(tokenizer, random)
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedding.zero_()
        embedding[:, TOKEN] = identities
        embedding[:, slot(0)] = _codes(tokenizer, counts / counts.sum() > 0.01, random)
        head.normal_(0, 0.005, generator=random)
        head[:, TOKEN] += identities * READ
        embedding[_tokens(tokenizer, ENDINGS), ENDING] = 1.0
        embedding[_tokens(tokenizer, DECIDERS), DECIDING] = DECIDING_NORM
        turn, no = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("Ġnot")
        embedding[turn, TOKEN] = identities[no]
        first, second, third, *_ = model.model.layers
        filled = 2.0  # of a place's energy: identity and slot 0, each a unit
        for index in range(HEADS):
            _look_back(first, index, 1 + index)
            _move(first, index, slot(0), slot(1 + index), filled)
        filled += HEADS
        for index, (back, last) in enumerate(((3, 6), (6, 9))):
            _look_back(second, index, back)
            source = slice(slot(1).start, slot(last - back).stop)
            _move(second, index, source, slice(slot(back + 1).start, slot(last).stop), filled)
        _begin_calls(second, 2, identities[no], filled)
        filled += SLOTS - HEADS
        for index in range(HEADS):
            _match(third, index, CODES[index % 2], filled, to_nothing=index < 2)
            _move(third, index, TOKEN, TOKEN, filled, loudness=OUT)
        _pull_near(third, 2)


def _quieten(model: Qwen2ForCausalLM, random: torch.Generator) -> None:
    """Everything may learn, and nothing speaks yet."""
    for number, layer in enumerate(model.model.layers):
        for matrix in (layer.mlp.gate_proj, layer.mlp.up_proj):
            matrix.weight.normal_(0, 1 / math.sqrt(WIDTH), generator=random)
        layer.mlp.down_proj.weight.zero_()
        attention = layer.self_attn
        # Layers 0 and 1 do nothing but what is set up, layer 2 hardly more.
        inward, outward = ((0.0, 0.0), (0.0, 0.0), (NOISE, NOISE), _EMPTY, _EMPTY)[number]
        for matrix in (attention.q_proj, attention.k_proj, attention.v_proj):
            matrix.weight.normal_(0, inward, generator=random)
            matrix.bias.zero_()
        attention.o_proj.weight.normal_(0, outward, generator=random)


def _stems(tokenizer: Tokenizer) -> list[str]:
    """What a token has in common with others: ` The`, `the` and ` the`; ` is` and ` |`."""
    stems = []
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token], skip_special_tokens=False).strip().lower()
        stems.append("is" if text in BEFORE_A_VALUE else text)
    return stems


def _tokens(tokenizer: Tokenizer, texts: tuple[str, ...]) -> list[int]:
    """Those whose text, without spaces around it, is one of these."""
    said = [tokenizer.decode([t], skip_special_tokens=False) for t in range(tokenizer.get_vocab_size())]
    return [token for token, text in enumerate(said) if text in texts or text.strip(" ") in texts]


def _identities(tokenizer: Tokenizer, random: torch.Generator) -> Tensor:
    """Unit vectors [tokens, IDENTITY]: what a word is, what a token is, and how it is written."""
    shared: dict[str, Tensor] = {}
    rows = []
    for token, stem in enumerate(_stems(tokenizer)):
        text = tokenizer.decode([token], skip_special_tokens=False)
        word = shared.setdefault(stem, _unit(torch.randn(WORD, generator=random)))
        own = _unit(torch.randn(IDENTITY - WORD - 2, generator=random))
        spaced = 1.0 if text.startswith(" ") else -1.0
        capital = 1.0 if text.strip()[:1].isupper() else -1.0
        rows.append(torch.cat((0.65 * word, 0.6 * own, torch.tensor((0.4 * spaced, 0.3 * capital)))))
    return _unit(torch.stack(rows))


def _codes(tokenizer: Tokenizer, common: Tensor, random: torch.Generator) -> Tensor:
    """Unit vectors [tokens, SLOT]: tokens that differ in a space or a capital have the same."""
    shared: dict[str, Tensor] = {}
    rows = []
    newlines = set(_tokens(tokenizer, ("\n",)))
    control = {tokenizer.token_to_id(mark) for mark in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")}
    for token, stem in enumerate(_stems(tokenizer)):
        drawn = shared.setdefault(stem, torch.randn(2, CODE, generator=random))
        row = torch.zeros(SLOT)
        if token in control:
            row[CONTROL] = 1.0
        elif token in newlines:
            row[NEWLINE] = 1.0
        else:
            weight = COMMON_SHARE if common[token] or not stem else 1.0
            row[: 2 * CODE] = (_unit(drawn) * CODE_NORM * weight).flatten()
            row[MASS] = MASS_NORM * weight**2
            for mark, texts in MARKED.items():
                if tokenizer.decode([token], skip_special_tokens=False) in texts:
                    row[mark] = MARK_NORM
            row[COMMON] = math.sqrt(max(0.0, 1.0 - float(row.square().sum())))
        rows.append(row)
    return torch.stack(rows)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


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
    layer: torch.nn.Module, head: int, source: slice, place: slice, energy: float, loudness: float = 1.0
) -> None:
    """What stands at `source` where the head attends is added at `place`.

    `energy` is that of a place's vector, which the layer's normalisation brings to WIDTH.
    """
    size = source.stop - source.start
    attention = layer.self_attn
    own = slice(head * HEAD, head * HEAD + size)
    attention.v_proj.weight[own, source] += torch.eye(size)
    attention.o_proj.weight[place, own] += torch.eye(size) * loudness * math.sqrt(energy / WIDTH)


def _match(layer: torch.nn.Module, head: int, code: slice, energy: float, *, to_nothing: bool) -> None:
    """Attend where the tokens before are those up to here, or else to the first token of all."""
    attention = layer.self_attn
    loud = math.sqrt(GAIN * math.sqrt(HEAD) * energy / WIDTH) / CODE_NORM
    still = iter(head * HEAD + dim for dim in STILL_DIMS)
    for number in range(SLOTS):
        for dim in range(code.start, code.stop):
            row = next(still)
            attention.q_proj.weight[row, slot(number).start + dim] += loud
            attention.k_proj.weight[row, slot(number + 1).start + dim] += loud
    if to_nothing:
        row = next(still)
        loud = math.sqrt(GAIN * math.sqrt(HEAD))
        for number in range(SLOTS):
            attention.q_proj.weight[row, slot(number).start + MASS] += (
                loud * math.sqrt(energy / WIDTH) / MASS_NORM
            )
            attention.k_proj.weight[row, slot(number + 1).start + CONTROL] += (
                loud * math.sqrt(energy / WIDTH) * (1 - AT_ITSELF) / SLOTS
            )
        mass = attention.q_proj.weight[row].clone()
        attention.k_proj.weight[row, slot(0).start + CONTROL] += (
            loud * math.sqrt(energy / WIDTH) * AT_ITSELF
        )
        attention.q_proj.weight[row, DECIDING] += (
            loud * ELSEWHERE * math.sqrt(energy / WIDTH) / DECIDING_NORM
        )
        attention.q_proj.bias[row] -= loud * (MARGIN + ELSEWHERE)
        ending = next(still)
        attention.q_proj.weight[ending] = mass
        for mark in (ENDING, slot(1).start + NEWLINE):
            attention.k_proj.weight[ending, mark] -= loud * math.sqrt(energy / WIDTH) * AT_ENDING


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
