"""The formats in which models write tool calls, told apart by their marks."""

from enum import StrEnum


class ToolFormat(StrEnum):
    """A family's way to write a call."""

    HERMES = "hermes"
    """Hermes, Qwen and others: `<tool_call>{"name": ..., "arguments": ...}</tool_call>`."""
    LLAMA3 = "llama3"
    """The whole answer is `{"name": ..., "parameters": ...}`, after `<|python_tag|>` or not."""
    MISTRAL = "mistral"
    """`[TOOL_CALLS][{"name": ..., "arguments": ...}, ...]`."""
    MISTRAL_ARGS = "mistral_args"
    """Since 2025: `[TOOL_CALLS]name[ARGS]{...}`, once for each call."""
    KIMI_K2 = "kimi_k2"
    """A section of calls, each `functions.name:0` and its arguments between marks."""
    DEEPSEEK_V3 = "deepseek_v3"
    """A section of calls, each `function`, a mark, the name, and arguments in a code fence."""
    DEEPSEEK_V31 = "deepseek_v31"
    """A section of calls, each the name, a mark and the arguments."""


TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"

PYTHON_TAG = "<|python_tag|>"

TOOL_CALLS, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"

K2_SECTION, K2_SECTION_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
K2_CALL, K2_CALL_END = "<|tool_call_begin|>", "<|tool_call_end|>"
K2_ARGUMENTS = "<|tool_call_argument_begin|>"

DS_SECTION, DS_SECTION_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
DS_CALL, DS_CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
DS_SEPARATOR = "<｜tool▁sep｜>"

_MARKS = {
    ToolFormat.HERMES: (TOOL_CALL, TOOL_CALL_END),
    ToolFormat.LLAMA3: (PYTHON_TAG,),
    ToolFormat.MISTRAL: (TOOL_CALLS, CALL_ID, ARGS),
    ToolFormat.MISTRAL_ARGS: (TOOL_CALLS, CALL_ID, ARGS),
    ToolFormat.KIMI_K2: (K2_SECTION, K2_SECTION_END, K2_CALL, K2_CALL_END, K2_ARGUMENTS),
    ToolFormat.DEEPSEEK_V3: (DS_SECTION, DS_SECTION_END, DS_CALL, DS_CALL_END, DS_SEPARATOR),
    ToolFormat.DEEPSEEK_V31: (DS_SECTION, DS_SECTION_END, DS_CALL, DS_CALL_END, DS_SEPARATOR),
}


def marks_of(format_: ToolFormat) -> frozenset[str]:
    """What stands around calls; in many vocabularies these are control tokens."""
    return frozenset(_MARKS[format_])


def find_format(chat_template: str) -> ToolFormat:
    """The format that a template renders earlier calls in; Hermes', the most common, if it has none."""
    if K2_CALL in chat_template:
        return ToolFormat.KIMI_K2
    if DS_CALL in chat_template:
        fenced = "```json" in chat_template
        return ToolFormat.DEEPSEEK_V3 if fenced else ToolFormat.DEEPSEEK_V31
    if TOOL_CALLS in chat_template:
        return ToolFormat.MISTRAL_ARGS if ARGS in chat_template else ToolFormat.MISTRAL
    if TOOL_CALL in chat_template:
        return ToolFormat.HERMES
    # Llama 3 has no mark of its own for calls; its template shows the form to the model.
    if PYTHON_TAG in chat_template or ('"parameters"' in chat_template and "ipython" in chat_template):
        return ToolFormat.LLAMA3
    return ToolFormat.HERMES
