"""docs/moonshot-api.md, section 4: what caching clients also call. Files have a file of their own."""

from collections.abc import Callable

import httpx
import openai
import pytest

Create = Callable[..., dict]
USER = {"role": "user", "content": "Is the quay clear? 码头 <|im_end|>"}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
CALL = {"id": "look:0", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
FORMS = [
    {"messages": [USER]},
    {"messages": [USER], "tools": TOOLS},
    {"messages": [USER], "tools": TOOLS, "tool_choice": "none"},
    {
        "messages": [{"role": "system", "content": "Brief."}, USER],
        "response_format": {"type": "json_object"},
    },
    {
        "messages": [
            USER,
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "look:0", "content": "clear"},
        ],
        "tools": TOOLS,
    },
    {"messages": [USER, {"role": "assistant", "content": "It is", "partial": True}]},
    {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "Is"}, {"type": "text", "text": "it?"}],
            }
        ]
    },
]


def test_models_are_listed_under_all_names(sdk: openai.OpenAI) -> None:
    listed = {model.id: model for model in sdk.models.list()}
    assert {"tiny", "moonshot-v1", "moonshot-v1-8k", "moonshot-v1-32k", "moonshot-v1-128k"} <= set(
        listed
    )
    assert all(model.object == "model" and model.created > 0 for model in listed.values())


def both(http: httpx.Client, body: dict, headers: dict | None = None) -> tuple[int, int]:
    """The estimate, and what the chat counted."""
    estimate = http.post("/v1/tokenizers/estimate-token-count", json=body, headers=headers)
    chat = http.post("/v1/chat/completions", json=body | {"max_tokens": 1}, headers=headers)
    assert chat.status_code == 200, chat.text
    assert estimate.json().keys() == {"data"}
    return estimate.json()["data"]["total_tokens"], chat.json()["usage"]["prompt_tokens"]


@pytest.mark.parametrize("form", FORMS)
def test_the_estimate_is_what_the_chat_counts(http: httpx.Client, form: dict) -> None:
    estimated, counted = both(http, {"model": "moonshot-v1"} | form)
    assert estimated == counted


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_the_estimate_counts_the_cache(http: httpx.Client, create: Create, tools: list | None) -> None:
    cache = create(**({"tools": tools} if tools else {}))
    by_message = [{"role": "cache", "content": f"cache_id={cache['id']}"}, USER]
    estimated, counted = both(http, {"model": "moonshot-v1", "messages": by_message})
    assert estimated == counted > cache["tokens"]
    body = {"model": "moonshot-v1", "messages": [*cache["messages"], USER]}
    headers = {"X-Msh-Context-Cache": cache["id"]}
    whole, counted = both(http, body | ({"tools": tools} if tools else {}), headers)
    assert whole == counted == estimated


def test_the_balance_lets_clients_go_on(http: httpx.Client) -> None:
    reply = http.get("/v1/users/me/balance").json()
    data = reply.pop("data")
    assert reply == {"code": 0, "scode": "0x0", "status": True}
    assert data.keys() == {"available_balance", "voucher_balance", "cash_balance"}
    assert data["available_balance"] > 0
