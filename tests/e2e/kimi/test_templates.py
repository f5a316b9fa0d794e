"""Caches under templates that each have one habit (docs/pitfalls.md), as served.

Whatever the template does, a chat with a cache answers as the same messages sent whole, and reports as
cached what was truly shared.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import templates
from settings import NAMED_ONLY

from mooring.testing import TINY, ServerProcess, write_random_model

pytestmark = pytest.mark.embedded  # each template is in a GGUF of its own

SYSTEM = {"role": "system", "content": "Keep the quay clear at all hours. " * 8}
USER = {"role": "user", "content": "Is the quay clear?"}
ANSWER = {"role": "assistant", "content": "It is."}
THOUGHT = ANSWER | {"reasoning_content": "The quay has been swept this morning. " * 4}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


@dataclass(frozen=True)
class Habit:
    template: str
    cached: list[dict]
    follow_ups: list[list[dict]]
    """Each with the whole cached prefix shared."""
    moved: list[list[dict]]
    """Follow-ups before which the template renders the cached messages differently."""
    tools: list[dict]


HABITS = {
    "chatml": Habit(templates.CHATML, [SYSTEM], [[USER], [USER, ANSWER, USER]], [], []),
    "drops old reasoning": Habit(
        templates.DROPS_OLD_REASONING, [SYSTEM, USER, THOUGHT], [[USER], [USER, THOUGHT, USER]], [], []
    ),
    "prints the date": Habit(templates.PRINTS_THE_DATE, [SYSTEM], [[USER]], [], []),
    "moves tools to the last user turn": Habit(
        templates.MOVES_TOOLS, [SYSTEM], [[USER]], [[USER, ANSWER, USER]], TOOLS
    ),
    "injects a default system message": Habit(
        templates.INJECTS_A_SYSTEM_MESSAGE, [USER, ANSWER], [[USER]], [], []
    ),
    "merges system into user": Habit(
        templates.MERGES_SYSTEM_INTO_USER, [SYSTEM], [[USER], [USER, ANSWER, USER]], [], []
    ),
    "refuses two systems": Habit(templates.REFUSES_TWO_SYSTEMS, [SYSTEM], [[USER]], [], []),
    "emits BOS": Habit(templates.EMITS_BOS, [SYSTEM], [[USER]], [], []),
}


@contextmanager
def serving(folder: Path, template: str) -> Iterator[httpx.Client]:
    model = write_random_model(folder / "model.gguf", TINY, chat_template=template)
    with (
        ServerProcess(folder / "data", model, NAMED_ONLY) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        yield http


def ask(http: httpx.Client, messages: list[dict], tools: list[dict] | None = None) -> httpx.Response:
    body = {"model": "moonshot-v1", "messages": messages, "max_tokens": 8, "temperature": 0}
    reply = http.post("/v1/chat/completions", json=body | ({"tools": tools} if tools else {}))
    assert reply.status_code == 200, reply.text
    return reply


@pytest.mark.parametrize("name", HABITS)
def test_a_cache_answers_as_the_messages_sent_whole(name: str, tmp_path: Path) -> None:
    habit = HABITS[name]
    with serving(tmp_path, habit.template) as http:
        body = {"model": "moonshot-v1", "messages": habit.cached, "tools": habit.tools}
        cache = http.post("/v1/caching", json=body).json()
        assert cache["tokens"] > 20
        use = {"role": "cache", "content": f"cache_id={cache['id']}"}
        for later in [*habit.follow_ups, *habit.moved]:
            reply, whole = ask(http, [use, *later]), ask(http, [*habit.cached, *later], habit.tools)
            assert reply.json()["choices"] == whole.json()["choices"]
            usage = reply.json()["usage"]
            assert usage["prompt_tokens"] == whole.json()["usage"]["prompt_tokens"]
            if later in habit.moved:
                assert 0 < usage["cached_tokens"] < cache["tokens"]
                assert reply.headers["X-Context-Cache-Miss"] == "template_moved_prefix"
            else:
                assert usage["cached_tokens"] == cache["tokens"]
                assert "X-Context-Cache-Miss" not in reply.headers
            assert reply.headers["Msh-Context-Cache-Token-Saved"] == str(usage["cached_tokens"])


def test_messages_that_the_template_refuses_are_a_400(tmp_path: Path) -> None:
    with serving(tmp_path, templates.REFUSES_TWO_SYSTEMS) as http:
        body = {"model": "moonshot-v1", "messages": [SYSTEM, SYSTEM]}
        cache = http.post("/v1/caching", json=body | {"messages": [SYSTEM]}).json()
        use = {"role": "cache", "content": f"cache_id={cache['id']}"}
        for path, messages in (
            ("/v1/caching", [SYSTEM, SYSTEM]),
            ("/v1/chat/completions", [SYSTEM, SYSTEM, USER]),
            ("/v1/chat/completions", [use, SYSTEM, USER]),
        ):
            reply = http.post(path, json=body | {"messages": messages})
            assert reply.status_code == 400
            error = reply.json()["error"]
            assert error["param"] == "messages"
            assert "one system message only" in error["message"]
