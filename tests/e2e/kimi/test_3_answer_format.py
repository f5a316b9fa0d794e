"""Section 3, what a chat's answer may look like: `response_format` and `partial`.

Driven with a model of random weights: what holds here holds with any model.
"""

import json

import httpx
import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

BERTH = {
    "type": "object",
    "properties": {
        "berth": {"type": "integer", "minimum": 1, "maximum": 40},
        "ship": {"type": "string", "maxLength": 16},
    },
    "required": ["berth", "ship"],
    "additionalProperties": False,
}
ASK = [{"role": "user", "content": "Which ship lies where?"}]


def format_of(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "berth", "schema": schema, "strict": True}}


def test_json_object_is_an_object(sdk: openai.OpenAI):
    for seed in range(5):
        reply = sdk.chat.completions.create(
            model="moonshot-v1",
            messages=ASK,
            response_format={"type": "json_object"},
            max_tokens=400,
            seed=seed,
        )
        choice = reply.choices[0]
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.message.content.startswith("{")


def test_json_schema_is_followed(sdk: openai.OpenAI):
    reply = sdk.chat.completions.create(
        model="moonshot-v1", messages=ASK, response_format=format_of(BERTH), n=3, max_tokens=200
    )
    for choice in reply.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), BERTH)


def test_json_schema_is_followed_in_a_stream_after_a_cache(sdk: openai.OpenAI, create, held):
    cache = create()
    stream = sdk.chat.completions.create(
        model="moonshot-v1",
        messages=[{"role": "cache", "content": f"cache_id={cache['id']}"}, *ASK],  # type: ignore[list-item]
        response_format=format_of(BERTH),
        max_tokens=200,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    jsonschema.validate(json.loads(text), BERTH)
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == held(cache)


def test_the_sdks_parse_helper_gets_its_model(sdk: openai.OpenAI):
    class Berth(BaseModel):
        berth: int = Field(ge=0, le=99)  # random weights would go on with digits
        moored: bool

    reply = sdk.chat.completions.parse(model="moonshot-v1", messages=ASK, response_format=Berth)
    assert isinstance(reply.choices[0].message.parsed, Berth)


@pytest.mark.parametrize(
    ("response_format", "param"),
    [
        ({"type": "yaml"}, "response_format.type"),
        ({}, "response_format.type"),
        ("json_object", "response_format"),
        ({"type": "json_schema"}, "response_format"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema.schema"),
        (format_of({"type": "bogus"}), "response_format"),
        (format_of({"not": {}}), "response_format"),
        (format_of({"const": "x" * 70_000}), "response_format"),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_a_format_that_cannot_be_followed_is_refused(
    http: httpx.Client, response_format: object, param: str
):
    body = {"model": "moonshot-v1", "messages": ASK, "response_format": response_format}
    for stream in (False, True):
        reply = http.post("/v1/chat/completions", json=body | {"stream": stream})
        assert reply.status_code == 400, reply.text
        error = reply.json()["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param), error


def test_text_is_the_default_format(http: httpx.Client):
    body = {"model": "moonshot-v1", "messages": ASK, "seed": 5, "max_tokens": 8}
    plain = http.post("/v1/chat/completions", json=body).json()
    text = http.post("/v1/chat/completions", json=body | {"response_format": {"type": "text"}}).json()
    assert plain["choices"] == text["choices"]


# Over vLLM the same text is drawn as other tokens than it is cut into, and goes on differently.
@pytest.mark.embedded
def test_an_answer_goes_on_from_a_partial_message(http: httpx.Client):
    """The reply holds what follows; the prompt, token for token, holds what was begun."""
    body = {"model": "moonshot-v1", "temperature": 0, "max_tokens": 12}
    whole = http.post("/v1/chat/completions", json=body | {"messages": ASK, "logprobs": True}).json()
    text = whole["choices"][0]["message"]["content"]
    drawn = [each["token"] for each in whole["choices"][0]["logprobs"]["content"]]

    def go_on(begun: str) -> tuple[int, str]:
        """How many tokens the prompt has more, and the answer."""
        partial = {"role": "assistant", "content": begun, "partial": True}
        rest = http.post("/v1/chat/completions", json=body | {"messages": [*ASK, partial]}).json()
        more = rest["usage"]["prompt_tokens"] - whole["usage"]["prompt_tokens"]
        return more, rest["choices"][0]["message"]["content"]

    # Random weights draw tokens that no tokenizer would make of the same text: go on from some that
    # it would.
    beginnings = {count: "".join(drawn[:count]) for count in range(1, len(drawn))}
    rest = {count: go_on(begun) for count, begun in beginnings.items()}
    same = [count for count, (more, _) in rest.items() if more == count]
    assert same
    for count in same:
        assert (beginnings[count] + rest[count][1])[: len(text)] == text


def test_a_partial_message_after_a_cache_is_a_hit(http: httpx.Client, create, held):
    cache = create()
    messages = [
        {"role": "cache", "content": f"cache_id={cache['id']}"},
        *ASK,
        {"role": "assistant", "content": "The ship is", "partial": True},
    ]
    body = {"model": "moonshot-v1", "messages": messages, "max_tokens": 4}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.headers["Msh-Context-Cache-Id"] == cache["id"]
    assert reply.json()["usage"]["cached_tokens"] == held(cache)
    estimate = http.post("/v1/tokenizers/estimate-token-count", json=body).json()
    assert estimate["data"]["total_tokens"] == reply.json()["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user", "content": "x", "partial": True}], "messages[0].partial"),
        (
            [{"role": "assistant", "content": "x", "partial": True}, *ASK],
            "messages[0].partial",
        ),
        ([*ASK, {"role": "assistant", "content": "x", "partial": "yes"}], "messages[1].partial"),
    ],
)
def test_only_an_assistants_last_message_can_be_partial(http: httpx.Client, messages, param):
    body = {"model": "moonshot-v1", "messages": messages}
    for path in ("/v1/chat/completions", "/v1/tokenizers/estimate-token-count"):
        reply = http.post(path, json=body)
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"]["param"] == param


def test_a_partial_answer_cannot_be_held_to_a_format(http: httpx.Client):
    messages = [*ASK, {"role": "assistant", "content": "{", "partial": True}]
    body = {"model": "moonshot-v1", "messages": messages, "response_format": {"type": "json_object"}}
    reply = http.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "response_format")
