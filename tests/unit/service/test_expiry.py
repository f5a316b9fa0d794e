"""When a cache ends."""

import dataclasses

import pytest

from mooring.core.context import CacheObject, Status
from mooring.core.errors import InvalidRequest
from mooring.service.expiry import as_of, choose_end

NOW = 1_720_000_000


def end(ttl_s=None, expired_at=None, *, default_ttl_s=3600, max_ttl_s=None):
    return choose_end(
        NOW, ttl_s=ttl_s, expired_at=expired_at, default_ttl_s=default_ttl_s, max_ttl_s=max_ttl_s
    )


def make_cache(status=Status.READY, expired_at=NOW):
    return CacheObject(
        id="cache-1",
        tenant="default",
        model="moonshot-v1",
        messages=({"role": "system", "content": "text"},),
        tools=(),
        name="",
        description="",
        metadata=None,
        created_at=NOW - 60,
        expired_at=expired_at,
        status=status,
        tokens=3,
        prefix_id="ab",
    )


def refusal(*asked, **settings):
    with pytest.raises(InvalidRequest) as caught:
        end(*asked, **settings)
    return caught.value


def test_end_is_ttl_seconds_from_now():
    assert end(ttl_s=300) == NOW + 300


def test_end_is_the_moment_that_was_named():
    assert end(expired_at=NOW + 1) == NOW + 1


def test_end_without_a_wish_is_the_default():
    assert end(default_ttl_s=86_400) == NOW + 86_400


def test_end_of_expired_at_zero_is_the_default():
    assert end(expired_at=0) == NOW + 3600


def test_end_by_default_respects_the_bound():
    assert end(default_ttl_s=3600, max_ttl_s=60) == NOW + 60


def test_end_by_both_ways_is_refused():
    assert refusal(300, NOW + 300).param == "ttl"


@pytest.mark.parametrize("ttl_s", [0, -5])
def test_end_by_a_ttl_that_is_over_is_refused(ttl_s):
    assert refusal(ttl_s).param == "ttl"


@pytest.mark.parametrize("expired_at", [NOW, NOW - 1, 1, -1])
def test_end_in_the_past_is_refused(expired_at):
    assert refusal(None, expired_at).param == "expired_at"


def test_end_at_the_bound_is_accepted():
    assert end(ttl_s=60, max_ttl_s=60) == end(expired_at=NOW + 60, max_ttl_s=60) == NOW + 60


def test_ttl_beyond_the_bound_is_refused_with_the_bound():
    error = refusal(61, max_ttl_s=60)
    assert error.param == "ttl"
    assert "60 seconds" in error.message


def test_moment_beyond_the_bound_is_refused():
    assert refusal(None, NOW + 61, max_ttl_s=60).param == "expired_at"


@pytest.mark.parametrize("now", [NOW, NOW + 0.5, NOW + 1000])
@pytest.mark.parametrize("status", Status)
def test_cache_past_its_end_is_inactive_before_it_is_swept(status, now):
    assert as_of(make_cache(status), now).status is Status.INACTIVE


@pytest.mark.parametrize("status", Status)
def test_cache_before_its_end_is_as_it_is(status):
    cache = make_cache(status)
    assert as_of(cache, NOW - 0.5) == cache


def test_cache_past_its_end_keeps_everything_but_its_status():
    cache = make_cache()
    assert dataclasses.replace(as_of(cache, NOW), status=cache.status) == cache
