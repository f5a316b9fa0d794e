"""Whether a cache applies to a request in header form, and why it does not."""

import pytest

from mooring.core.context import CacheObject, Status
from mooring.core.miss import Miss, MissReason
from mooring.service.use import CacheUse, find_miss

SYSTEM = {"role": "system", "content": "Keep the quay clear."}
USER = {"role": "user", "content": "Is it?"}
TOOL = {"type": "function", "function": {"name": "look"}}
USE = CacheUse("cache-1", repeated=True)


def make_cache(**fields):
    values = {
        "id": "cache-1",
        "tenant": "t",
        "model": "moonshot-v1",
        "messages": (SYSTEM,),
        "tools": (TOOL,),
        "name": "",
        "description": "",
        "metadata": None,
        "created_at": 0,
        "expired_at": 10,
        "status": Status.READY,
        "tokens": 5,
        "prefix_id": "ab",
    }
    return CacheObject(**values | fields)


def miss(cache=None, use=USE, messages=(SYSTEM, USER), tools=(TOOL,), served=("moonshot-v1",)):
    found = cache or make_cache()
    return find_miss(found, use, messages=messages, tools=tools, served=list(served))


@pytest.mark.parametrize("status", [Status.READY, Status.PENDING])
def test_repeated_messages_and_tools_are_a_hit(status):
    assert miss(make_cache(status=status)) is None


def test_the_cached_messages_alone_are_a_hit():
    assert miss(messages=(SYSTEM,)) is None


@pytest.mark.parametrize(
    ("messages", "index"),
    [((USER,), 0), ((), 0), ((SYSTEM | {"name": "x"}, USER), 0), ((USER, SYSTEM), 0)],
)
def test_the_first_message_that_differs_is_named(messages, index):
    assert miss(messages=messages) == Miss(MissReason.MESSAGES_CHANGED, index)


def test_a_later_difference_has_a_later_index():
    cache = make_cache(messages=(SYSTEM, USER, USER))
    assert miss(cache, messages=(SYSTEM, USER, SYSTEM)) == Miss(MissReason.MESSAGES_CHANGED, 2)
    assert miss(cache, messages=(SYSTEM, USER)) == Miss(MissReason.MESSAGES_CHANGED, 2)


@pytest.mark.parametrize("tools", [(), (TOOL, TOOL), ({"type": "function"},)])
def test_other_tools_are_a_miss(tools):
    assert miss(tools=tools) == Miss(MissReason.TOOLS_CHANGED)


def test_a_model_that_is_not_served_any_more_is_a_miss():
    assert miss(served=("other",)) == Miss(MissReason.MODEL_CHANGED)


def test_an_expired_cache_is_a_miss_unless_it_gets_a_new_life():
    expired = make_cache(status=Status.INACTIVE)
    assert miss(expired) == Miss(MissReason.EXPIRED)
    assert miss(expired, CacheUse("cache-1", reset_ttl_s=60, repeated=True)) is None


def test_a_miss_reads_as_its_header():
    assert str(Miss(MissReason.MESSAGES_CHANGED, 3)) == "messages_changed; index=3"
    assert str(Miss(MissReason.EXPIRED)) == "expired"
