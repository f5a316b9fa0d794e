"""What is sent to vLLM."""

import pytest

from mooring.core.errors import InvalidRequest
from mooring.core.prefix import Prefix
from mooring.engine.interface import Generation, Grammar, Sampling
from mooring.engine.vllm.completions import (
    generation_body,
    keep_body,
    message_body,
    one_time_salt,
    use_message,
)

PROMPT = (5, 6, 7)


def body(**sampling: object) -> dict:
    drawn = Sampling(**{"max_tokens": 9} | sampling)  # type: ignore[arg-type]
    return generation_body("m", Generation(PROMPT, None, drawn), "tenant", None)


def test_a_request_overrides_what_the_models_own_configuration_would_set() -> None:
    sent = body()
    assert sent["top_k"] == 0
    assert sent["min_p"] == 0
    assert sent["repetition_penalty"] == 1
    assert sent["temperature"] == 1
    assert sent["top_p"] == 1
    assert sent["max_tokens"] == 9
    assert sent["cache_salt"] == "tenant"
    assert "kv_transfer_params" not in sent
    assert "seed" not in sent
    assert "logprobs" not in sent


def test_greedy_is_temperature_zero_and_for_several_choices_the_best_token() -> None:
    assert body(temperature=1e-9)["temperature"] == 0
    several = body(temperature=0, choices=3)
    assert (several["n"], several["temperature"], several["top_k"]) == (3, 1.0, 1)


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, 2**64 + 3, -(2**70)])
def test_any_seed_and_those_of_its_choices_fit_into_vllms(seed: int) -> None:
    sent = body(seed=seed, choices=5)["seed"]
    assert sent >= 0
    assert sent + 4 < 2**63


def test_log_probabilities_come_as_token_ids() -> None:
    sent = body(top_logprobs=0)
    assert sent["logprobs"] == 0
    assert sent["return_tokens_as_token_ids"]


def test_control_tokens_are_in_vllms_text_when_any_are_wanted() -> None:
    sampling = Sampling(9)
    plain = generation_body("m", Generation(PROMPT, None, sampling), "t", None)
    marked = generation_body(
        "m", Generation(PROMPT, None, sampling, marks=frozenset({"<x>"})), "t", None
    )
    assert plain["skip_special_tokens"]
    assert not marked["skip_special_tokens"]


def test_a_grammar_is_passed_on_unless_it_is_too_large() -> None:
    asked = Generation(PROMPT, None, Sampling(9), Grammar('start: "a"', "tools"))
    sent = generation_body("m", asked, "t", None)
    assert sent["structured_outputs"] == {"grammar": 'start: "a"'}
    large = Generation(PROMPT, None, Sampling(9), Grammar("x" * 70_000, "tools"))
    with pytest.raises(InvalidRequest, match=r"tools: .* larger than"):
        generation_body("m", large, "t", None)


def test_a_keep_has_one_token_more_where_there_is_room() -> None:
    prefix = Prefix("tenant", PROMPT)
    roomy, tight = keep_body("m", prefix, 60, 5), keep_body("m", prefix, 60, 4)
    assert (roomy["prompt"], tight["prompt"]) == ((5, 6, 7, 7), PROMPT)
    assert roomy["cache_salt"] == "tenant"
    assert roomy["kv_transfer_params"] == {"mooring": {"keep": prefix.id, "tokens": 3, "lease_s": 60}}


def test_uses_name_the_prefix_and_messages_have_a_salt_of_their_own() -> None:
    prefix = Prefix("tenant", PROMPT)
    use = use_message(prefix, 60)
    asked = Generation((*PROMPT, 8), prefix, Sampling(9))
    assert generation_body("m", asked, "tenant", use)["kv_transfer_params"] == {"mooring": use}
    first, second = message_body("m", {"stat": True}), message_body("m", {"stat": True})
    assert first["cache_salt"] != second["cache_salt"]
    assert first["kv_transfer_params"] == {"mooring": {"stat": True}}


def test_no_tenant_can_have_a_one_time_salt() -> None:
    assert not one_time_salt()[0].isalnum()
