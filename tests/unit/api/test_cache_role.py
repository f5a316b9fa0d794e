"""Moonshot's cache message: the first message of a chat may name a cache (docs/moonshot-api.md, 3)."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mooring.api.cache_role import (
    parse_cache_content,
    read_cache_headers,
    split_cache_message,
)
from mooring.api.messages import ChatMessage
from mooring.core.errors import InvalidRequest
from mooring.service.use import CacheUse


def message(role="user", content="hello"):
    return ChatMessage(role=role, content=content)


def cache_message(content="cache_id=cache-1"):
    return message("cache", content)


def refusal(content):
    with pytest.raises(InvalidRequest) as caught:
        parse_cache_content(content)
    assert caught.value.param == "messages[0].content"
    return caught.value.message


@pytest.mark.parametrize(
    ("content", "use"),
    [
        ("cache_id=cache-1", CacheUse("cache-1")),
        ("cache_id=cache-1;", CacheUse("cache-1")),
        ("cache_id=cache-1;reset_ttl=3600", CacheUse("cache-1", reset_ttl_s=3600)),
        ("cache_id=cache-1;reset_ttl=3600;", CacheUse("cache-1", reset_ttl_s=3600)),
        ("reset_ttl=1;cache_id=cache-1", CacheUse("cache-1", reset_ttl_s=1)),
        (" cache_id = cache-1 ; reset_ttl = 60 ", CacheUse("cache-1", reset_ttl_s=60)),
        ("cache_id=a=b", CacheUse("a=b")),
        ("cache_id=cache-1;reset_ttl=0060", CacheUse("cache-1", reset_ttl_s=60)),
        ("tag=manual", CacheUse(tag="manual")),
        ("tag=manual;reset_ttl=5;dry_run=1", CacheUse(tag="manual", reset_ttl_s=5, dry_run=True)),
        ("cache_id=cache-1;dry_run=0", CacheUse("cache-1")),
        ("cache_id=cache-1;reset_ttl=9999999999", CacheUse("cache-1", reset_ttl_s=9_999_999_999)),
        ("reset_ttl=60; tag = manual;", CacheUse(tag="manual", reset_ttl_s=60)),
        ("cache_id=cache-1;dry_run=1", CacheUse("cache-1", dry_run=True)),
        ("dry_run=1;tag=manual;reset_ttl=5", CacheUse(tag="manual", reset_ttl_s=5, dry_run=True)),
    ],
)
def test_cache_content_names_the_cache_and_its_new_lifetime(content, use):
    assert parse_cache_content(content) == use


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "cannot read ''"),
        (";", "cannot read ''"),
        ("cache-1", "cannot read 'cache-1'"),
        ("cache_id", "cannot read 'cache_id'"),
        ("cache_id=", "cannot read 'cache_id='"),
        ("cache_id= ;reset_ttl=1", "cannot read 'cache_id= '"),
        ("Cache_ID=cache-1", "cannot read 'Cache_ID=cache-1'"),
        ("cache_id=cache-1;;", "cannot read ''"),
        (";cache_id=cache-1", "cannot read ''"),
        ("cache_id=cache-1;;reset_ttl=1", "cannot read ''"),
        ("cache_id=cache-1,reset_ttl=1;ttl=5", "cannot read 'ttl=5'"),
        ("cache_id=cache-1;reset_ttl=", "cannot read 'reset_ttl='"),
        ("reset_ttl=3600", "give one of cache_id and tag"),
        ("cache_id=a;tag=b", "give one of cache_id and tag"),
        ("cache_id=a;cache_id=b", "cache_id is given twice"),
        ("cache_id=a;reset_ttl=1;reset_ttl=1", "reset_ttl is given twice"),
        ("tag=a;tag=a", "tag is given twice"),
        ("tag=", "cannot read 'tag='"),
        ("cache_id=a;dry_run=2", "dry_run must be 0 or 1, not '2'"),
        ("cache_id=a;dry_run=true", "dry_run must be 0 or 1, not 'true'"),
    ],
)
def test_cache_content_that_breaks_the_form_is_refused_with_the_reason(content, problem):
    assert problem in refusal(content)


@pytest.mark.parametrize("value", ["0", "00", "-1", "+1", "1.5", "1e3", "0x10", "soon", "1 0", "1_0"])
def test_reset_ttl_that_is_no_number_of_seconds_is_refused(value):
    assert "reset_ttl must be a number of seconds above 0" in refusal(f"cache_id=a;reset_ttl={value}")


@pytest.mark.parametrize("value", ["\u0663\u0666", "\uff13\uff16", "\u00b2", "\u2460"])
def test_reset_ttl_in_other_digits_is_refused(value):
    assert "reset_ttl must be" in refusal(f"cache_id=a;reset_ttl={value}")


@pytest.mark.parametrize("value", ["10000000000", "9" * 5000])
def test_reset_ttl_beyond_ten_digits_is_refused(value):
    assert "reset_ttl must be" in refusal(f"cache_id=a;reset_ttl={value}")


@pytest.mark.parametrize("content", [None, 3, [], ["cache_id=a"], {"cache_id": "a"}, b"cache_id=a"])
def test_cache_content_that_is_no_string_is_refused(content):
    assert "must be a string" in refusal(content)


def test_refusal_shows_the_form():
    form = "cache_id=<id> or tag=<name>, optionally followed by ;reset_ttl=<seconds> and ;dry_run=1"
    assert form in refusal("nonsense")


OPTION = st.tuples(
    st.sampled_from(["cache_id", "reset_ttl", "tag", "dry_run", " cache_id", "", "x"]),
    st.sampled_from(["=", "==", "", " = "]),
    st.text(max_size=6) | st.sampled_from(["cache-1", "3600", "0", "-1", " ", "\u0663"]),
).map("".join)
ALMOST = st.lists(OPTION, max_size=4).map(";".join)
JUNK = st.text() | st.text(alphabet="cache_id=;reset_ttl0123456789 ") | ALMOST


@given(JUNK | st.none() | st.integers() | st.lists(st.text(), max_size=2))
@example("\x00")
@example("cache_id=\ud800")
@example("cache_id=a;reset_ttl=\u0663")
def test_cache_content_is_read_or_refused_and_nothing_else(content):
    with contextlib.suppress(InvalidRequest):
        use = parse_cache_content(content)
        (name,) = {use.cache_id, use.tag} - {None}
        assert name == name.strip() != ""
        assert use.reset_ttl_s is None or 0 < use.reset_ttl_s < 10**10


def test_chat_without_a_cache_message_is_left_alone():
    messages = [message("system"), message()]
    assert split_cache_message(messages, tools_sent=True) == (None, messages)


def test_chat_without_messages_is_left_alone():
    assert split_cache_message([], tools_sent=False) == (None, [])


def test_chat_with_a_cache_message_is_split_behind_it():
    messages = [cache_message("cache_id=cache-1;reset_ttl=60"), message(), message("assistant")]
    expected = (CacheUse("cache-1", reset_ttl_s=60), messages[1:])
    assert split_cache_message(messages, tools_sent=False) == expected


def test_chat_of_a_cache_message_alone_has_no_messages():
    assert split_cache_message([cache_message()], tools_sent=False) == (CacheUse("cache-1"), [])


@pytest.mark.parametrize("before", [[message()], [cache_message()]])
def test_cache_message_that_is_not_the_first_is_refused(before):
    with pytest.raises(InvalidRequest, match="only the first message") as caught:
        split_cache_message([*before, cache_message()], tools_sent=False)
    assert caught.value.param == "messages[1].role"


def test_tools_beside_a_cache_message_are_refused():
    with pytest.raises(InvalidRequest, match="uses the tools of the cache") as caught:
        split_cache_message([cache_message(), message()], tools_sent=True)
    assert caught.value.param == "tools"


def test_cache_message_with_text_parts_is_refused():
    parts = [{"type": "text", "text": "cache_id=cache-1"}]
    with pytest.raises(InvalidRequest, match="must be a string"):
        split_cache_message([cache_message(parts), message()], tools_sent=False)


# The header form


def header_refusal(**headers):
    with pytest.raises(InvalidRequest) as caught:
        read_cache_headers(make_headers(**headers))
    return caught.value


def make_headers(cache="cache-1", **options):
    return {"X-Msh-Context-Cache": cache} | {
        f"X-Msh-Context-Cache-{name.replace('_', '-')}": value for name, value in options.items()
    }


@pytest.mark.parametrize(
    ("options", "use"),
    [
        ({}, CacheUse("cache-1", repeated=True)),
        ({"Reset_TTL": "60"}, CacheUse("cache-1", reset_ttl_s=60, repeated=True)),
        ({"DryRun": "1"}, CacheUse("cache-1", dry_run=True, repeated=True)),
        ({"DryRun": "0"}, CacheUse("cache-1", repeated=True)),
    ],
)
def test_cache_headers_name_the_cache_that_the_request_repeats(options, use):
    assert read_cache_headers(make_headers(**options)) == use


def test_headers_without_the_caches_own_name_no_cache():
    headers = make_headers(Reset_TTL="soon", DryRun="maybe")
    del headers["X-Msh-Context-Cache"]
    assert read_cache_headers(headers) is None


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "soon", "\u0663", "10000000000"])
def test_reset_ttl_header_that_is_no_number_of_seconds_is_refused(value):
    error = header_refusal(Reset_TTL=value)
    assert error.param == "X-Msh-Context-Cache-Reset-TTL"
    assert "must be a number of seconds above 0" in error.message


@pytest.mark.parametrize("value", ["", "2", "true"])
def test_dry_run_header_that_is_neither_0_nor_1_is_refused(value):
    error = header_refusal(DryRun=value)
    assert error.param == "X-Msh-Context-Cache-DryRun"
    assert "must be 0 or 1" in error.message


def test_header_form_is_read_like_the_message_but_marks_the_messages_as_repeated():
    headers = {
        "X-Msh-Context-Cache": "cache-1",
        "X-Msh-Context-Cache-Reset-TTL": "60",
        "X-Msh-Context-Cache-DryRun": "1",
    }
    expected = CacheUse("cache-1", reset_ttl_s=60, dry_run=True, repeated=True)
    assert read_cache_headers(headers) == expected
    assert read_cache_headers({"X-Msh-Context-Cache": "a"}) == CacheUse("a", repeated=True)


def test_request_without_the_header_names_no_cache():
    assert read_cache_headers({"X-Msh-Context-Cache-DryRun": "1"}) is None
