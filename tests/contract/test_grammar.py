"""Answers held to a grammar match it, whatever the model would rather say."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path

import jsonschema
import pytest

from mooring.config import EngineConfig, KvStoreConfig
from mooring.core.conversation import Conversation
from mooring.core.errors import InvalidRequest
from mooring.engine.interface import (
    ChoiceFinished,
    Delta,
    Finished,
    FinishReason,
    Generation,
    Grammar,
    Sampling,
)
from mooring.engine.llamacpp.engine import LlamaEngine
from mooring.engine.llamacpp.loading import load_engine
from mooring.service.answer_format import json_grammar
from mooring.service.json_schema import ANY_OBJECT
from mooring.telemetry import Metrics

SHIP = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "berth": {"type": "integer", "minimum": 1, "maximum": 40},
        "flags": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 3},
        "moored": {"type": "boolean"},
    },
    "required": ["name", "berth", "flags", "moored"],
    "additionalProperties": False,
}
QUESTION = Conversation(({"role": "user", "content": "Which ship is it?"},), (), date(2026, 1, 1))

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(model: Path, data_dir: Path) -> AsyncIterator[LlamaEngine]:
    config = EngineConfig(cells=4096, sequences=16)
    engine = await load_engine(model, "tiny", config, KvStoreConfig(), data_dir, Metrics())
    try:
        async with asyncio.timeout(60):
            yield engine
            engine._scheduler.check()
    finally:
        await engine.close()


async def answers(
    engine: LlamaEngine, grammar: Grammar | None, sampling: Sampling, marks: frozenset[str] = frozenset()
) -> tuple[list[str], list[FinishReason], list[Delta]]:
    prompt = await engine.render(QUESTION)
    texts, reasons = [""] * sampling.choices, [FinishReason.LENGTH] * sampling.choices
    deltas = []
    async for event in engine.generate(Generation(prompt, None, sampling, grammar, marks)):
        match event:
            case Delta(choice, text):
                texts[choice] += text
                deltas.append(event)
            case ChoiceFinished(choice, reason):
                reasons[choice] = reason
            case Finished(usage):
                assert usage.completion_tokens > 0
    return texts, reasons, deltas


async def test_every_choice_matches_the_schema(tiny_model: Path, tmp_path: Path):
    async with running(tiny_model, tmp_path) as engine:
        grammar = json_grammar(SHIP, "response_format")
        for seed in range(5):
            sampling = Sampling(max_tokens=200, seed=seed, choices=4, presence_penalty=0.5)
            texts, reasons, _ = await answers(engine, grammar, sampling)
            assert reasons == [FinishReason.STOP] * 4
            assert len(set(texts)) > 1, "choices are drawn apart"
            for text in texts:
                jsonschema.validate(json.loads(text), SHIP)


async def test_a_greedy_answer_matches_too(tiny_model: Path, tmp_path: Path):
    async with running(tiny_model, tmp_path) as engine:
        grammar = json_grammar(SHIP, "response_format")
        (text,), (reason,), _ = await answers(engine, grammar, Sampling(200, temperature=0))
        assert reason is FinishReason.STOP
        jsonschema.validate(json.loads(text), SHIP)


async def test_any_object_is_an_object_or_the_beginning_of_one(tiny_model: Path, tmp_path: Path):
    async with running(tiny_model, tmp_path) as engine:
        grammar = json_grammar(ANY_OBJECT, "response_format")
        for seed in range(10):
            (text,), (reason,), _ = await answers(engine, grammar, Sampling(64, seed=seed))
            assert text.startswith("{")
            if reason is FinishReason.STOP:
                assert isinstance(json.loads(text), dict)


async def test_an_answer_ends_where_nothing_can_follow(tiny_model: Path, tmp_path: Path):
    """Without a further evaluation for a token that can only be the end."""
    async with running(tiny_model, tmp_path) as engine:
        grammar = json_grammar({"const": True}, "response_format")
        (text,), (reason,), _ = await answers(engine, grammar, Sampling(64))
        assert (text, reason) == ("true", FinishReason.STOP)


async def test_log_probabilities_are_the_models_own(tiny_model: Path, tmp_path: Path):
    async with running(tiny_model, tmp_path) as engine:
        sampling = Sampling(max_tokens=1, temperature=0, top_logprobs=5)
        _, _, (free,) = await answers(engine, None, sampling)
        grammar = json_grammar({"const": "harbour"}, "response_format")
        _, _, (held,) = await answers(engine, grammar, sampling)
        assert held.logprobs[0].top == free.logprobs[0].top
        assert math.isfinite(held.logprobs[0].drawn.logprob)
        assert held.logprobs[0].drawn.data.startswith(b'"')


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 10**9},
        {"type": "string", "maxLength": 10**9},
        {"type": "array", "items": {}, "minItems": 10**9},
        {"type": "string", "pattern": "(a+)+b{1000}{1000}"},
        {"const": "x" * 30_000},
        {"enum": [f"{number}" * 9 for number in range(1000)]},
        {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
async def test_extreme_schemas_are_followed_as_far_as_the_tokens_reach(
    tiny_model: Path, tmp_path: Path, schema: dict
):
    async with running(tiny_model, tmp_path) as engine:
        grammar = json_grammar(schema, "response_format")
        (text,), _, _ = await answers(engine, grammar, Sampling(32, seed=1))
        assert text[:1] in '"['


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "bogus"}, "bogus"),
        ({"not": {"type": "string"}}, "not"),
        ({"$ref": "http://127.0.0.1:1/schema.json"}, "127.0.0.1"),
        ({"const": "x" * 70_000}, "larger than"),
        ({"type": "object", "properties": {f"k{n}": {} for n in range(3000)}}, None),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "no answer"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
async def test_schemas_that_cannot_be_followed_are_named(
    tiny_model: Path, tmp_path: Path, schema: dict, problem: str | None
):
    async with running(tiny_model, tmp_path) as engine:
        with pytest.raises(InvalidRequest, match=problem) as caught:
            await answers(engine, json_grammar(schema, "response_format"), Sampling(8))
        assert caught.value.param == "response_format"
        assert "\n" not in caught.value.message
        (text,), _, _ = await answers(engine, None, Sampling(4))  # nobody else is hurt
        assert isinstance(text, str)


async def test_one_request_failing_at_its_grammar_leaves_others_alone(tiny_model: Path, tmp_path: Path):
    """Found out during the decode, when other requests share the batch."""
    async with running(tiny_model, tmp_path) as engine:
        endless = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
        bad = answers(engine, json_grammar(endless, "response_format"), Sampling(50, choices=3))
        good = answers(engine, json_grammar(SHIP, "response_format"), Sampling(100, seed=3))
        failure, (texts, _, _) = await asyncio.gather(bad, good, return_exceptions=True)
        assert isinstance(failure, InvalidRequest)
        jsonschema.validate(json.loads(texts[0]), SHIP)


async def test_control_tokens_show_only_where_they_were_asked_for(tiny_model: Path, tmp_path: Path):
    grammar = Grammar('start: "ship " <|im_start|> " ahoy"', "tools")
    async with running(tiny_model, tmp_path) as engine:
        assert "<|im_start|>" in engine.model.control_tokens
        (hidden,), _, _ = await answers(engine, grammar, Sampling(32))
        assert hidden == "ship  ahoy"
        marks = frozenset({"<|im_start|>", "no such token"})
        (shown,), _, _ = await answers(engine, grammar, Sampling(32), marks)
        assert shown == "ship <|im_start|> ahoy"


async def test_cancelled_answers_leave_nothing_behind(tiny_model: Path, tmp_path: Path):
    async with running(tiny_model, tmp_path) as engine:
        grammar = json_grammar({"type": "string", "minLength": 10**6}, "response_format")
        prompt = await engine.render(QUESTION)
        for _ in range(10):
            events = engine.generate(Generation(prompt, None, Sampling(1000, choices=2), grammar))
            async for event in events:
                if isinstance(event, Delta):
                    break
            await events.aclose()
        (text,), _, _ = await answers(engine, None, Sampling(4))
        assert isinstance(text, str)
        assert engine._scheduler._admitted.decoding == []
