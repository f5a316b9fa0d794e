"""Section 3, tool calls in replies: `tool_choice`, ids, deltas, `finish_reason`.

The model has random weights and would never call a tool by itself: what is forced holds with any model.
How each model family's own format is read is in tests/unit/service/tool_calls.
"""

import json

import httpx
import jsonschema
import openai
import pytest

BERTH = {
    "type": "object",
    "properties": {
        "ship": {"type": "string", "maxLength": 12},
        "berth": {"type": "integer", "minimum": 1, "maximum": 40},
    },
    "required": ["ship", "berth"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": "assign_berth", "parameters": BERTH}},
    {"type": "function", "function": {"name": "sound-horn", "parameters": NOTHING}},
]
ASK = [{"role": "user", "content": "Bring the Ariadne in."}]
NAMED = {"type": "function", "function": {"name": "assign_berth"}}
MODEL = {"model": "moonshot-v1", "max_tokens": 300}


def check_call(call: dict, number: int) -> None:
    name = call["function"]["name"]
    assert call["id"] == f"{name}:{number}"
    assert call["type"] == "function"
    arguments = json.loads(call["function"]["arguments"])
    assert name in ("assign_berth", "sound-horn")
    jsonschema.validate(arguments, BERTH if name == "assign_berth" else NOTHING)


@pytest.mark.parametrize("seed", range(5))
def test_required_calls_a_tool(http: httpx.Client, seed: int):
    body = MODEL | {"messages": ASK, "tools": TOOLS, "tool_choice": "required", "seed": seed}
    reply = http.post("/v1/chat/completions", json=body | {"parallel_tool_calls": False})
    (choice,) = reply.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert not choice["message"]["content"]
    (call,) = choice["message"]["tool_calls"]
    check_call(call, 0)


def test_a_named_tool_is_the_one_that_is_called(sdk: openai.OpenAI):
    reply = sdk.chat.completions.create(
        **MODEL, messages=ASK, tools=TOOLS, tool_choice=NAMED, parallel_tool_calls=False, n=4
    )
    for choice in reply.choices:
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        assert (call.id, call.function.name) == ("assign_berth:0", "assign_berth")
        jsonschema.validate(json.loads(call.function.arguments), BERTH)


def test_calls_are_streamed_as_deltas(http: httpx.Client):
    """Name and id once, arguments piece by piece; the last chunk carries reason and usage."""
    body = MODEL | {"messages": ASK, "tools": TOOLS, "tool_choice": NAMED, "seed": 3, "stream": True}
    lines = http.post("/v1/chat/completions", json=body | {"parallel_tool_calls": False}).text
    events = [line.removeprefix("data: ") for line in lines.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls] == [0] * len(calls)
    assert calls[0]["id"] == "assign_berth:0"
    assert calls[0]["function"]["name"] == "assign_berth"
    assert all("id" not in call and "name" not in call["function"] for call in calls[1:])
    assert len(calls) > 3, "not one piece at the end"
    arguments = "".join(call["function"]["arguments"] for call in calls)
    jsonschema.validate(json.loads(arguments), BERTH)
    assert choices[-1]["finish_reason"] == "tool_calls"
    assert choices[-1]["usage"]["completion_tokens"] > 0
    assert all(not choice["delta"].get("content") for choice in choices)


def test_the_sdk_puts_the_deltas_together(sdk: openai.OpenAI):
    with sdk.chat.completions.stream(
        **MODEL, messages=ASK, tools=TOOLS, tool_choice=NAMED, parallel_tool_calls=False
    ) as stream:
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    jsonschema.validate(json.loads(call.function.arguments), BERTH)


def test_the_result_of_a_call_goes_back_into_the_chat(http: httpx.Client):
    body = MODEL | {"messages": ASK, "tools": TOOLS, "tool_choice": NAMED, "parallel_tool_calls": False}
    message = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    result = {
        "role": "tool",
        "tool_call_id": message["tool_calls"][0]["id"],
        "content": "berth 7 is free",
    }
    again = body | {"messages": [*ASK, message, result], "tool_choice": "auto", "max_tokens": 4}
    reply = http.post("/v1/chat/completions", json=again)
    assert reply.status_code == 200, reply.text


def test_the_tools_of_a_cache_are_called(http: httpx.Client, create, held):
    cache = create(tools=TOOLS)
    messages = [{"role": "cache", "content": f"cache_id={cache['id']}"}, *ASK]
    body = MODEL | {"messages": messages, "tool_choice": NAMED, "parallel_tool_calls": False}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.headers["Msh-Context-Cache-Id"] == cache["id"]
    (call,) = reply.json()["choices"][0]["message"]["tool_calls"]
    check_call(call, 0)
    assert reply.json()["usage"]["cached_tokens"] == held(cache)


def test_several_calls_are_numbered(http: httpx.Client):
    """`n` from 0 within the reply."""
    for seed in range(40):
        body = MODEL | {"messages": ASK, "tools": TOOLS[:1], "tool_choice": NAMED, "seed": seed}
        (choice,) = http.post("/v1/chat/completions", json=body).json()["choices"]
        calls = choice["message"]["tool_calls"]
        complete = calls if choice["finish_reason"] == "tool_calls" else calls[:-1]
        for number, call in enumerate(complete):
            check_call(call, number)
        if len(complete) > 1:
            return
    pytest.fail("no seed of forty made two calls")


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_text_stays_text(http: httpx.Client, choice):
    body = MODEL | {"messages": ASK, "tools": TOOLS, "tool_choice": choice, "max_tokens": 16, "seed": 1}
    (answer,) = http.post("/v1/chat/completions", json=body).json()["choices"]
    assert answer["message"]["content"]
    assert "tool_calls" not in answer["message"]
    assert answer["finish_reason"] in ("stop", "length")


def test_tool_choice_does_not_change_the_prompt(http: httpx.Client, create, held):
    """So that a cache with tools hits whatever the choice is."""
    cache = create(tools=TOOLS)
    messages = [{"role": "cache", "content": f"cache_id={cache['id']}"}, *ASK]
    for choice in ("none", "auto", "required", NAMED):
        body = MODEL | {"messages": messages, "tool_choice": choice, "max_tokens": 2}
        usage = http.post("/v1/chat/completions", json=body).json()["usage"]
        assert usage["cached_tokens"] == held(cache)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": "required", "tools": None}, "tool_choice"),
        ({"tool_choice": NAMED, "tools": TOOLS[1:]}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        (
            {
                "tool_choice": "required",
                "messages": [*ASK, {"role": "assistant", "content": "I", "partial": True}],
            },
            "tool_choice",
        ),
        (
            {
                "tool_choice": "required",
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"type": "bogus"}}}
                ],
            },
            "tools",
        ),
    ],
)
def test_a_choice_that_cannot_be_kept_is_refused(http: httpx.Client, change: dict, param: str):
    body = MODEL | {"messages": ASK, "tools": TOOLS} | change
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
