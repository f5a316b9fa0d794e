"""Answers in each model family's own words, read as content and calls."""

import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.service.tool_calls.format import ToolFormat, marks_of
from mooring.service.tool_calls.part import CallArguments, CallBegun, Content
from mooring.service.tool_calls.reader import Reader

TOOLS = ("get_weather", "find", "über")
PARIS = '{"city": "Paris", "days": [1, {"a": "}]"}]}'
ODD = '{"q": "a \\"quoted\\" {brace} \\\\", "ключ": "值 🚢"}'

HERMES = f"""Let me look.
<tool_call>
{{"name": "get_weather", "arguments": {PARIS}}}
</tool_call>
<tool_call>
{{"name": "find", "arguments": {ODD}}}
</tool_call>"""
HERMES_OTHER_ORDER = f'<tool_call>{{"arguments": {PARIS}, "name": "get_weather"}}</tool_call>'
HERMES_AS_STRING = f'<tool_call>{{"name": "get_weather", "arguments": {json.dumps(PARIS)}}}</tool_call>'
HERMES_THINKING = f"""<think>
It wants {{"the weather"}}.
</think>

<tool_call>
{{"name": "get_weather", "arguments": {PARIS}}}
</tool_call>"""
LLAMA3 = f'{{"name": "get_weather", "parameters": {PARIS}}}; {{"name": "find", "parameters": {ODD}}}'
LLAMA3_TAG = f'<|python_tag|>{{"name": "get_weather", "parameters": {PARIS}}}'
LLAMA3_TYPED = f'{{"type": "function", "name": "get_weather", "parameters": {PARIS}}}'
MISTRAL = (
    f'Yes. [TOOL_CALLS] [{{"name": "get_weather", "arguments": {PARIS}}}, '
    f'{{"name": "find", "arguments": {ODD}, "id": "abc123XYZ"}}]'
)
MISTRAL_ARGS = f"[TOOL_CALLS]get_weather[ARGS]{PARIS}[TOOL_CALLS]find[CALL_ID]a1[ARGS]{ODD}"
KIMI = (
    "I will look.<|tool_calls_section_begin|>"
    f"<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{PARIS}<|tool_call_end|>"
    f"<|tool_call_begin|>functions.find:1<|tool_call_argument_begin|>{ODD}<|tool_call_end|>"
    "<|tool_calls_section_end|>"
)
DEEPSEEK_V3 = (
    "<｜tool▁calls▁begin｜>"
    f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{PARIS}\n```<｜tool▁call▁end｜>\n"
    f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>find\n```json\n{ODD}\n```<｜tool▁call▁end｜>"
    "<｜tool▁calls▁end｜>"
)
DEEPSEEK_V31 = (
    f"Now.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{PARIS}<｜tool▁call▁end｜>"
    f"<｜tool▁call▁begin｜>find<｜tool▁sep｜>{ODD}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
)
BOTH = [("get_weather:0", PARIS), ("find:1", ODD)]
ONE = BOTH[:1]

WRITTEN = [
    (ToolFormat.HERMES, HERMES, "Let me look.", BOTH),
    (ToolFormat.HERMES, HERMES_OTHER_ORDER, "", ONE),
    (ToolFormat.HERMES, HERMES_AS_STRING, "", ONE),
    (ToolFormat.HERMES, HERMES_THINKING, '<think>\nIt wants {"the weather"}.\n</think>', ONE),
    (ToolFormat.HERMES, '<tool_call>{"name": "find"}</tool_call>', "", [("find:0", "{}")]),
    (
        ToolFormat.HERMES,
        '<tool_call>{"name": "über", "arguments": null}</tool_call>',
        "",
        [("über:0", "{}")],
    ),
    (ToolFormat.HERMES, HERMES_OTHER_ORDER + " Done.", "Done.", ONE),
    (ToolFormat.LLAMA3, LLAMA3, "", BOTH),
    (ToolFormat.LLAMA3, LLAMA3_TAG, "", ONE),
    (ToolFormat.LLAMA3, f"  {LLAMA3_TYPED}", "", ONE),
    (ToolFormat.LLAMA3, f"Well: {LLAMA3_TAG}", "Well:", ONE),
    (ToolFormat.MISTRAL, MISTRAL, "Yes.", BOTH),
    (ToolFormat.MISTRAL, MISTRAL_ARGS, "", BOTH),
    (ToolFormat.MISTRAL_ARGS, MISTRAL_ARGS, "", BOTH),
    (ToolFormat.KIMI_K2, KIMI, "I will look.", BOTH),
    (ToolFormat.DEEPSEEK_V3, DEEPSEEK_V3, "", BOTH),
    (ToolFormat.DEEPSEEK_V3, DEEPSEEK_V31, "Now.", BOTH),
    (ToolFormat.DEEPSEEK_V31, DEEPSEEK_V31, "Now.", BOTH),
]
TEXT = [
    (ToolFormat.HERMES, "Nothing to call <tool>, <tool_cal"),
    (ToolFormat.HERMES, f" <think>\nCall it: {HERMES_OTHER_ORDER}\n </think> \n\nNo."),
    (ToolFormat.LLAMA3, f"<think>{LLAMA3_TAG}"),
    (ToolFormat.HERMES, "  spaces around \n\n"),
    (ToolFormat.HERMES, '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>'),
    (ToolFormat.HERMES, "<tool_call>find the ship</tool_call> <tool_call>"),
    (ToolFormat.HERMES, '<tool_call>{"name": "find", "arguments": [1]}</tool_call>'),
    (ToolFormat.HERMES, '<tool_call>{"name": "fi'),
    (ToolFormat.HERMES, '<tool_call>{"name": 5}'),
    (ToolFormat.HERMES, '<tool_call>{"arguments": {"a": 1}'),
    (ToolFormat.LLAMA3, '{"berth": 7, "ship": "Ariadne"}'),
    (ToolFormat.LLAMA3, '{"name": "Ariadne", "parameters": {}}'),
    (ToolFormat.LLAMA3, "   "),
    (ToolFormat.LLAMA3, '  print("hello") {"name": "find"}'),
    (ToolFormat.MISTRAL, "[TOOL_CALLS]unknown[ARGS]{}"),
    (ToolFormat.MISTRAL, "[TOOL_CALLS] [1, 2]"),
    (ToolFormat.KIMI_K2, "<|tool_call_begin|>functions.unknown:0<|tool_call_argument_begin|>{}"),
    (ToolFormat.DEEPSEEK_V3, "<｜tool▁call▁begin｜>find and nothing else"),
]


def read(format_: ToolFormat, pieces: list[str], tools=TOOLS) -> tuple[str, list[tuple[str, str]]]:
    reader = Reader(format_, tools)
    parts = [part for piece in pieces for part in reader.push(piece)] + reader.finish()
    content, calls = "", []
    for part in parts:
        match part:
            case Content(text):
                assert text
                content += text
            case CallBegun(index):
                assert index == len(calls)
                calls.append((part.id, ""))
            case CallArguments(index, text):
                assert index == len(calls) - 1
                calls[index] = (calls[index][0], calls[index][1] + text)
    assert reader.calls == len(calls)
    return content, calls


@pytest.mark.parametrize(("format_", "text", "content", "calls"), WRITTEN)
def test_calls_are_read(format_, text, content, calls):
    assert read(format_, [text]) == (content, calls)


@pytest.mark.parametrize(("format_", "text", "content", "calls"), WRITTEN)
def test_calls_are_read_character_by_character(format_, text, content, calls):
    assert read(format_, list(text)) == (content, calls)


@pytest.mark.parametrize(("format_", "text"), TEXT)
@pytest.mark.parametrize("cut", [list, lambda text: [text]])
def test_what_is_no_call_is_content_word_for_word(format_, text, cut):
    assert read(format_, cut(text)) == (text, [])


@pytest.mark.parametrize(("format_", "text", "content", "calls"), WRITTEN)
def test_an_answer_that_ends_anywhere_loses_no_name_and_no_argument(format_, text, content, calls):
    for end in range(len(text)):
        _, read_calls = read(format_, [text[:end]])
        for (name, arguments), (whole_name, whole) in zip(read_calls, calls, strict=False):
            assert name == whole_name
            assert whole.startswith(arguments) or arguments == "{}"


def test_arguments_are_streamed_as_they_come():
    reader = Reader(ToolFormat.HERMES, TOOLS)
    assert reader.push('<tool_call>{"name": "find", "argu') == []
    assert reader.push('ments": {"q": "a') == [CallBegun(0, "find"), CallArguments(0, '{"q": "a')]
    assert reader.push(" long") == [CallArguments(0, " long")]
    assert reader.push(' one"}') == [CallArguments(0, ' one"}')]
    assert reader.push("}</tool_call>") == []
    assert reader.finish() == []


def test_content_flows_but_for_what_may_be_a_mark():
    reader = Reader(ToolFormat.HERMES, TOOLS)
    assert reader.push("It is <b>") == [Content("It is <b>")]
    assert reader.push(" <tool") == []
    assert reader.push("box>") == [Content(" <toolbox>")]


def test_without_declared_tools_every_name_is_taken():
    assert read(ToolFormat.HERMES, ['<tool_call>{"name": "any"}</tool_call>'], ()) == (
        "",
        [("any:0", "{}")],
    )


def test_much_space_before_a_call_is_held_within_bounds():
    space = " " * 10_000
    whole = read(ToolFormat.HERMES, [space + HERMES_OTHER_ORDER])
    assert whole == read(ToolFormat.HERMES, list(space + HERMES_OTHER_ORDER))
    assert whole[1] == ONE


WORDS = ['{"name": "find", ', '"arguments": {', '"parameters": {', '{"a": "b"}', "}", "{", "[", "]"]
WORDS += ['"', "\\", ",", ":", ";", " ", "\n", "find", "functions.", "function", "```json\n", "```"]
WORDS += ["<think>", "</think>", "null", "0", "x", "é", "<", "1.5"]
ALPHABET = {format_: [*sorted(marks_of(format_)), *WORDS] for format_ in ToolFormat}
ANSWERS = st.sampled_from(ToolFormat).flatmap(
    lambda format_: st.tuples(st.just(format_), st.lists(st.sampled_from(ALPHABET[format_])))
)


@given(ANSWERS, st.data())
def test_parts_do_not_depend_on_how_the_answer_is_cut(answer, data):
    format_, words = answer
    text = "".join(words)
    cuts = data.draw(st.lists(st.integers(0, len(text))).map(sorted))
    edges = [0, *cuts, len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    assert read(format_, pieces) == read(format_, [text])


@given(ANSWERS)
def test_nothing_but_space_and_the_format_of_calls_is_lost(answer):
    format_, words = answer
    text = "".join(words)
    content, calls = read(format_, [text])
    if not calls and not any(mark in text for mark in marks_of(format_)):
        assert content == text
    assert not Counter(content) - Counter(text)


@given(st.sampled_from(ToolFormat), st.text())
def test_any_text_can_be_read(format_, text):
    read(format_, [text])


OPENINGS = {
    ToolFormat.HERMES: '<tool_call>{"name": "find", "arguments": ',
    ToolFormat.LLAMA3: '{"name": "find", "parameters": ',
    ToolFormat.MISTRAL: '[TOOL_CALLS][{"name": "find", "arguments": ',
    ToolFormat.MISTRAL_ARGS: "[TOOL_CALLS]find[ARGS]",
    ToolFormat.KIMI_K2: "<|tool_call_begin|>functions.find:0<|tool_call_argument_begin|>",
    ToolFormat.DEEPSEEK_V3: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>find\n```json\n",
    ToolFormat.DEEPSEEK_V31: "<｜tool▁call▁begin｜>find<｜tool▁sep｜>",
}


@pytest.mark.parametrize("format_", ToolFormat)
def test_what_has_been_read_is_let_go(format_):
    """So the work for each piece does not grow with the answer."""
    reader = Reader(format_, TOOLS)
    reader.push(OPENINGS[format_] + '{"text": "')
    for _ in range(2000):
        reader.push("some words ")
        assert reader._source.rest == 0
        assert len(reader._source._text) < 100
