"""Grammars of calls, walked at random: what they allow is read back as the calls they force."""

import json
import random

import jsonschema
import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from mooring.core.errors import InvalidRequest
from mooring.service.tool_calls import ToolFormat, call_grammar, find_format, marks_of, no_call_grammar
from mooring.service.tool_calls.part import CallArguments, CallBegun, Content
from mooring.service.tool_calls.reader import Reader

BERTH = {
    "type": "object",
    "properties": {
        "ship": {"type": "string", "maxLength": 6},
        "berth": {"type": "integer", "minimum": 1, "maximum": 40},
    },
    "required": ["ship", "berth"],
    "additionalProperties": False,
}
NOTHING = {"properties": {}, "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": "assign_berth", "parameters": BERTH}},
    {"type": "function", "function": {"name": 'odd"\\é', "parameters": NOTHING}},
]
SCHEMAS = {"assign_berth": BERTH, 'odd"\\é': NOTHING}
END = 256
ALL_MARKS = sorted(frozenset().union(*map(marks_of, ToolFormat)))
CONTROL = {mark: END + 1 + number for number, mark in enumerate(ALL_MARKS)}


class Bytes:
    """A token for each byte, one that ends answers, and the marks of all formats."""

    eos_token_id = END
    bos_token_id = None
    tokens = [bytes([byte]) for byte in range(256)] + [b"<end>"] + [m.encode() for m in ALL_MARKS]
    special_token_ids = range(END, END + 1 + len(ALL_MARKS))

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


TOKENIZER = LLTokenizer(TokenizerWrapper(Bytes()))


def walk(grammar: str, seed: int, steps: int = 600, avoid: bytes = b"") -> tuple[str, bool]:
    """A random text of the grammar, and whether it came to its end."""
    matcher, chance = LLMatcher(TOKENIZER, grammar, log_level=0), random.Random(seed)
    assert not matcher.is_error(), matcher.get_error()
    drawn: list[int] = []
    while len(drawn) < steps and not matcher.is_stopped():
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little")[: len(Bytes.tokens)])
        printable = [token for token in allowed if token >= END or 32 <= token < 127 or token == 10]
        token = int(chance.choice(printable or list(allowed)))
        if token == END:
            return text_of(drawn), True
        assert matcher.consume_token(token)
        drawn.append(token)
    return text_of(drawn), matcher.is_stopped()


def text_of(tokens: list[int]) -> str:
    return b"".join(Bytes.tokens[token] for token in tokens).decode(errors="replace")


def calls_in(format_: ToolFormat, text: str, *, ended: bool = True) -> list[tuple[str, str]]:
    reader = Reader(format_, list(SCHEMAS))
    calls: list[tuple[str, str]] = []
    for part in [*reader.push(text), *reader.finish()]:
        match part:
            case CallBegun(_, name):
                calls.append((name, ""))
            case CallArguments(index, piece):
                calls[index] = (calls[index][0], calls[index][1] + piece)
            case Content(content) if ended:  # else a beginning of the next call
                raise AssertionError(f"content {content!r} in {text!r}")
    return calls


@pytest.mark.parametrize("control", [CONTROL, {}], ids=["marks are control tokens", "marks are text"])
@pytest.mark.parametrize("format_", ToolFormat)
def test_a_forced_answer_is_one_call_of_the_schema(format_, control):
    seen = set()
    for seed in range(12):
        text, ended = walk(call_grammar(format_, TOOLS, control, parallel=False), seed)
        assert ended, text
        ((name, arguments),) = calls_in(format_, text)
        jsonschema.validate(json.loads(arguments), SCHEMAS[name])
        seen.add(name)
    assert seen == set(SCHEMAS)


@pytest.mark.parametrize("format_", ToolFormat)
def test_a_forced_answer_may_be_several_calls(format_):
    counts = set()
    for seed in range(40):
        text, ended = walk(call_grammar(format_, TOOLS, CONTROL, parallel=True), seed)
        calls = calls_in(format_, text, ended=ended)
        for name, arguments in calls if ended else calls[:-1]:
            jsonschema.validate(json.loads(arguments), SCHEMAS[name])
        counts.add(len(calls))
    assert max(counts) > 1


def test_a_tool_without_parameters_takes_any_object():
    tool = {"type": "function", "function": {"name": "assign_berth"}}
    for seed in range(5):
        text, _ = walk(call_grammar(ToolFormat.HERMES, [tool], {}, parallel=False), seed, steps=200)
        assert text.startswith('<tool_call>\n{"name": "assign_berth", "arguments": {')


def test_json_may_be_the_other_answer():
    grammar = call_grammar(
        ToolFormat.HERMES, TOOLS, {}, parallel=False, or_json={"type": "array", "items": {"const": 1}}
    )
    starts = {walk(grammar, seed)[0][0] for seed in range(30)}
    assert starts == {"<", "["}


@pytest.mark.parametrize("format_", [each for each in ToolFormat if each is not ToolFormat.LLAMA3])
@pytest.mark.parametrize("control", [CONTROL, {}], ids=["marks are control tokens", "marks are text"])
def test_no_call_can_begin_where_calls_are_ruled_out(format_, control):
    grammar = no_call_grammar(format_, control)
    matcher = LLMatcher(TOKENIZER, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    begun = call_grammar(format_, TOOLS, control, parallel=False)
    text, _ = walk(begun, 1)
    tokens: list[int] = []
    while text:
        token = next((CONTROL[mark] for mark in control if text.startswith(mark)), None)
        piece = Bytes.tokens[token].decode() if token is not None else text[0]
        tokens += [token] if token is not None else list(piece.encode())
        text = text[len(piece) :]
    assert matcher.try_consume_tokens(tokens) < len(tokens)
    free = LLMatcher(TOKENIZER, grammar, log_level=0)
    words = list(b'Plain words, {"json": [1]}, <tool> and more.')
    assert free.try_consume_tokens(words) == len(words)
    assert free.is_accepting()


def test_parameters_that_are_no_object_are_refused():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}
    with pytest.raises(InvalidRequest, match="'f' must be of type 'object'"):
        call_grammar(ToolFormat.HERMES, [tool], {}, parallel=False)


@pytest.mark.parametrize(
    ("template", "format_"),
    [
        ("{% for m in messages %}<tool_call>\n{{ m }}\n</tool_call>", ToolFormat.HERMES),
        ("{{ '<|python_tag|>' }}", ToolFormat.LLAMA3),
        ('{"name": f, "parameters": d} <|start_header_id|>ipython', ToolFormat.LLAMA3),
        ("[TOOL_CALLS][{{ call }}]", ToolFormat.MISTRAL),
        ("[TOOL_CALLS]{{ name }}[ARGS]{{ a }}", ToolFormat.MISTRAL_ARGS),
        ("<|tool_calls_section_begin|><|tool_call_begin|>", ToolFormat.KIMI_K2),
        ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>\n```json", ToolFormat.DEEPSEEK_V3),
        ("<｜tool▁call▁begin｜>{{ name }}<｜tool▁sep｜>", ToolFormat.DEEPSEEK_V31),
        ("<|im_start|>{{ m.content }}", ToolFormat.HERMES),
    ],
)
def test_the_template_tells_the_format(template, format_):
    assert find_format(template) is format_
