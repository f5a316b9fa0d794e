"""What OpenAI's parameters do to an answer, and what happens when nobody wants it any more."""

import json
import time

import httpx
import openai
import pytest

from mooring.testing import ServerProcess

MESSAGES = [{"role": "user", "content": "Tell me about harbours."}]
CHAT = {"model": "moonshot-v1", "messages": MESSAGES, "max_tokens": 24}


def texts(completion: openai.types.chat.ChatCompletion) -> list[str]:
    return [choice.message.content for choice in completion.choices]


def test_temperature_0_is_greedy(sdk: openai.OpenAI) -> None:
    first, second = (
        sdk.chat.completions.create(**CHAT, temperature=0, logprobs=True, top_logprobs=1)
        for _ in range(2)
    )
    assert texts(first) == texts(second)
    for token in first.choices[0].logprobs.content:
        assert token.bytes == token.top_logprobs[0].bytes


def test_a_seed_repeats_the_answer_and_another_does_not(sdk: openai.OpenAI) -> None:
    one, same, other, fresh = (
        texts(sdk.chat.completions.create(**CHAT, seed=seed)) for seed in (1, 1, 2, None)
    )
    assert one == same
    assert len({*one, *other, *fresh}) == 3


def test_choices_differ_and_share_the_prompt(server: ServerProcess, sdk: openai.OpenAI) -> None:
    before = server.metric("mooring_prompt_tokens_evaluated_total", purpose="request")
    completion = sdk.chat.completions.create(**CHAT, n=4, seed=3)
    after = server.metric("mooring_prompt_tokens_evaluated_total", purpose="request")
    assert len(set(texts(completion))) == 4
    assert [choice.index for choice in completion.choices] == [0, 1, 2, 3]
    assert after - before == completion.usage.prompt_tokens
    assert completion.usage.completion_tokens <= 4 * 24


def test_max_tokens_ends_with_length(sdk: openai.OpenAI) -> None:
    completion = sdk.chat.completions.create(**CHAT | {"max_tokens": 3}, temperature=0)
    assert completion.usage.completion_tokens == 3
    assert completion.choices[0].finish_reason == "length"


def test_a_stop_string_ends_the_answer_before_it(sdk: openai.OpenAI) -> None:
    whole = texts(sdk.chat.completions.create(**CHAT, temperature=0))[0]
    stop = whole[10:14]
    completion = sdk.chat.completions.create(**CHAT, temperature=0, stop=[stop])
    assert texts(completion)[0] == whole[: whole.index(stop)]
    assert completion.choices[0].finish_reason == "stop"


def test_a_frequency_penalty_keeps_tokens_from_coming_back(sdk: openai.OpenAI) -> None:
    long = CHAT | {"max_tokens": 200, "temperature": 0, "logprobs": True}

    def distinct(**parameters: float) -> int:
        completion = sdk.chat.completions.create(**long, **parameters)
        return len({tuple(token.bytes) for token in completion.choices[0].logprobs.content})

    assert distinct(frequency_penalty=2, presence_penalty=2) > distinct()


def test_a_tiny_top_p_is_greedy(sdk: openai.OpenAI) -> None:
    greedy = texts(sdk.chat.completions.create(**CHAT, temperature=0))
    assert texts(sdk.chat.completions.create(**CHAT, temperature=1, top_p=1e-6)) == greedy


def test_the_stream_is_the_whole_answer_in_pieces(sdk: openai.OpenAI) -> None:
    whole = texts(sdk.chat.completions.create(**CHAT, seed=5))[0]
    stream = sdk.chat.completions.create(**CHAT, seed=5, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == whole
    assert len(pieces) > 5


def test_the_log_probabilities_are_normalised(sdk: openai.OpenAI) -> None:
    completion = sdk.chat.completions.create(**CHAT, logprobs=True, top_logprobs=20)
    for token in completion.choices[0].logprobs.content:
        top = [other.logprob for other in token.top_logprobs]
        assert top == sorted(top, reverse=True)
        assert sum(2.718281828**logprob for logprob in top) <= 1 + 1e-6


def wait_until_idle(server: ServerProcess) -> None:
    while server.metric("mooring_requests_running") or server.metric("mooring_requests_queued"):
        time.sleep(0.01)


LONG = CHAT | {"messages": [{"role": "user", "content": "harbour " * 25_000}]}


def evaluated(server: ServerProcess) -> float:
    return server.metric("mooring_prompt_tokens_evaluated_total", purpose="request")


def test_closing_a_stream_stops_the_work(server: ServerProcess, http: httpx.Client) -> None:
    before = evaluated(server)
    with http.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as reply:
        next(reply.iter_lines())  # the prefill has begun
    wait_until_idle(server)
    assert evaluated(server) - before < 25_000


def test_giving_up_on_a_plain_reply_stops_the_work(server: ServerProcess) -> None:
    before = evaluated(server)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/chat/completions", json=LONG, timeout=0.5)
    wait_until_idle(server)
    assert evaluated(server) - before < 25_000


def test_closing_a_stream_leaves_others_alone(server: ServerProcess, http: httpx.Client) -> None:
    alone = http.post("/v1/chat/completions", json=CHAT | {"temperature": 0}).json()
    with http.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as reply:
        next(reply.iter_lines())
        with httpx.stream(
            "POST",
            f"{server.url}/v1/chat/completions",
            json=CHAT | {"temperature": 0, "stream": True},
            timeout=60,
        ) as other:
            lines = other.iter_lines()
            got = [next(lines)]
            reply.close()
            got += list(lines)
    chunks = [json.loads(line[6:]) for line in got if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == alone["choices"][0]["message"]["content"]
    wait_until_idle(server)


def test_more_requests_than_sequences_wait_and_are_all_served(server: ServerProcess) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(seed: int) -> int:
        body = CHAT | {"n": 8, "seed": seed, "max_tokens": 4}
        return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code

    with ThreadPoolExecutor(24) as pool:  # 24 x 8 answers on 64 sequences
        assert list(pool.map(ask, range(24))) == [200] * 24
