"""docs/moonshot-api.md, section 2: the endpoints."""

import itertools
import time
from collections.abc import Callable

import httpx
import pytest

from mooring.testing import ServerProcess

Create = Callable[..., dict]
USER = {"role": "user", "content": "Is the quay clear?"}
TOOLS = [{"type": "function", "function": {"name": "look"}}]
_names = (f"tag-{n}" for n in itertools.count())


def call(call_id: str, name: str = "look") -> dict:
    function = {"name": name, "arguments": "{}"}
    return {
        "role": "assistant",
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def result(call_id: str) -> dict:
    return {"role": "tool", "tool_call_id": call_id, "content": "All clear."}


# Creating a cache


def test_creation_binds_the_tags_it_is_given(http: httpx.Client, create: Create) -> None:
    names = [next(_names), next(_names)]
    cache = create(tags=names)
    for name in names:
        assert http.get(f"/v1/caching/refs/tags/{name}").json()["cache_id"] == cache["id"]


def test_creation_takes_an_answered_tool_call(create: Create) -> None:
    messages = [USER, call("a"), result("a"), {"role": "assistant", "content": "It is."}]
    assert create(messages=messages, tools=TOOLS)["status"] == "ready"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([USER, result("a")], "messages[1].tool_call_id"),
        ([USER, call("a"), result("b")], "messages[2].tool_call_id"),
        ([USER, call("a"), result("a"), result("a")], "messages[3].tool_call_id"),
        ([USER, call("a")], "messages[1].tool_calls"),
        ([USER, call("a"), USER], "messages[1].tool_calls"),
        ([USER, call("a", "unknown"), result("a")], "messages[1].tool_calls"),
        ([USER, {"role": "assistant", "content": "It", "partial": True}], "messages[1].partial"),
    ],
)
def test_creation_refuses_calls_and_results_that_do_not_belong_together(
    messages: list[dict], param: str, http: httpx.Client
) -> None:
    body = {"model": "moonshot-v1", "messages": messages, "tools": TOOLS}
    reply = http.post("/v1/caching", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
    assert param in reply.json()["error"]["message"]


# Listing caches


def test_listing_filters_by_all_metadata_given(http: httpx.Client, create: Create) -> None:
    both = create(metadata={"team": "north", "shift": "night"})
    create(metadata={"team": "north", "shift": "day"})
    create()
    query = {"metadata[team]": "north", "metadata[shift]": "night"}
    found = http.get("/v1/caching", params=query).json()["data"]
    assert [cache["id"] for cache in found] == [both["id"]]


@pytest.mark.parametrize("key", ['a"b', "a\\b", "a.b", "$", "[0]", "键", "a'b", "a b"])
def test_listing_filters_by_keys_of_any_kind(key: str, http: httpx.Client, create: Create) -> None:
    made = create(metadata={key: "x", "other": "y"})
    create(metadata={"a": "x"})
    found = http.get("/v1/caching", params={f"metadata[{key}]": "x"}).json()["data"]
    assert [cache["id"] for cache in found] == [made["id"]]
    assert http.get("/v1/caching", params={f"metadata[{key}]": "y"}).json()["data"] == []


def test_listing_goes_both_ways_from_both_ends(http: httpx.Client, create: Create) -> None:
    mine = {"metadata[run]": "ends"}
    ids = [create(metadata={"run": "ends"})["id"] for _ in range(5)]

    def page(**query: object) -> list[str]:
        reply = http.get("/v1/caching", params=mine | query)
        assert reply.json()["object"] == "list"
        return [cache["id"] for cache in reply.json()["data"]]

    assert page() == ids[::-1]
    assert page(order="asc") == ids
    assert page(order="asc", limit=2) == ids[:2]
    assert page(order="asc", after=ids[1]) == ids[2:]
    assert page(order="asc", before=ids[3]) == ids[:3]
    assert page(order="asc", before=ids[3], limit=2) == ids[1:3]
    assert page(after=ids[3]) == ids[2::-1]
    assert page(before=ids[1]) == ids[:1:-1]
    assert page(order="asc", after=ids[0], before=ids[4]) == ids[1:4]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"order": "up"}, "order"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/caching", "/v1/caching/refs/tags"])
def test_a_wrong_page_is_a_400(path: str, query: dict, param: str, http: httpx.Client) -> None:
    reply = http.get(path, params=query)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("path", ["/v1/caching", "/v1/caching/refs/tags"])
@pytest.mark.parametrize("side", ["after", "before"])
def test_a_page_beside_nothing_is_a_404(path: str, side: str, http: httpx.Client) -> None:
    assert http.get(path, params={side: "nobody"}).status_code == 404


def test_a_cache_is_deleted_once(http: httpx.Client, create: Create) -> None:
    cache = create()
    gone = http.delete(f"/v1/caching/{cache['id']}")
    assert gone.json() == {
        "deleted": True,
        "id": cache["id"],
        "object": "context_cache_object.deleted",
    }
    for method in ("GET", "DELETE"):
        assert http.request(method, f"/v1/caching/{cache['id']}").status_code == 404


def test_a_bound_on_lifetimes_is_kept(tmp_path, tiny_model) -> None:
    """The vendor's is an hour; by default there is none."""
    body = {"model": "moonshot-v1", "messages": [USER]}
    with (
        ServerProcess(tmp_path, tiny_model, "[caching]\nmax_ttl_s = 3600") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        assert http.post("/v1/caching", json=body | {"ttl": 3600}).status_code == 200
        for end in ({"ttl": 3601}, {"expired_at": int(time.time()) + 9000}):
            reply = http.post("/v1/caching", json=body | end)
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, *end)


def test_paging_is_stable_while_caches_are_created(http: httpx.Client, create: Create) -> None:
    mine = {"metadata[run]": "paging"}
    made = [create(metadata={"run": "paging"})["id"] for _ in range(5)]
    seen, after = [], {}
    while page := http.get("/v1/caching", params=mine | after | {"limit": 2}).json()["data"]:
        seen += [cache["id"] for cache in page]
        after = {"after": seen[-1]}
        create(metadata={"run": "paging"})
    assert seen == made[::-1]


# Updating a cache


def test_an_update_changes_what_it_names_and_goes_through_the_steps(
    http: httpx.Client, create: Create, settled: Callable[[dict], dict]
) -> None:
    cache = create(ttl=60, metadata={"old": "1"})
    changed = http.put(f"/v1/caching/{cache['id']}", json={"metadata": {"new": "2"}}).json()
    assert changed == cache | {"status": "pending", "metadata": {"new": "2"}}
    assert settled(changed)["status"] == "ready"
    longer = http.put(f"/v1/caching/{cache['id']}", json={"ttl": 9000}).json()
    assert longer["expired_at"] >= cache["created_at"] + 9000
    assert longer["metadata"] == {"new": "2"}


def test_an_update_revives_an_expired_cache(
    http: httpx.Client, create: Create, settled: Callable[[dict], dict]
) -> None:
    cache = create(ttl=1)
    while http.get(f"/v1/caching/{cache['id']}").json()["status"] != "inactive":
        time.sleep(0.05)
    assert settled(http.put(f"/v1/caching/{cache['id']}", json={"ttl": 60}).json())["status"] == "ready"


def test_an_update_of_the_metadata_leaves_an_expired_cache_expired(
    http: httpx.Client, create: Create
) -> None:
    cache = create(ttl=1)
    while http.get(f"/v1/caching/{cache['id']}").json()["status"] != "inactive":
        time.sleep(0.05)
    reply = http.put(f"/v1/caching/{cache['id']}", json={"metadata": {"a": "b"}}).json()
    assert (reply["status"], reply["metadata"]) == ("inactive", {"a": "b"})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"ttl": 5, "expired_at": 2_000_000_000}, "ttl"),
        ({"expired_at": 5}, "expired_at"),
        ({"metadata": {"k" * 65: "v"}}, None),
    ],
)
def test_a_wrong_update_is_a_400(
    body: dict, param: str | None, http: httpx.Client, create: Create
) -> None:
    cache = create()
    reply = http.put(f"/v1/caching/{cache['id']}", json=body)
    assert reply.status_code == 400
    if param is not None:
        assert reply.json()["error"]["param"] == param
    assert http.get(f"/v1/caching/{cache['id']}").json() == cache


def test_an_update_of_an_unknown_cache_is_a_404(http: httpx.Client) -> None:
    reply = http.put("/v1/caching/cache-00000000000000000000", json={"ttl": 5})
    assert reply.status_code == 404


# Tags


def test_a_tag_is_bound_and_found(http: httpx.Client, create: Create) -> None:
    cache, name = create(), next(_names)
    before = int(time.time())
    bound = http.post("/v1/caching/refs/tags", json={"tag": name, "cache_id": cache["id"]}).json()
    assert bound.pop("created_at") >= before
    assert bound.pop("owned_by")
    assert bound == {"tag": name, "cache_id": cache["id"], "object": "cache_object.tag"}
    assert http.get(f"/v1/caching/refs/tags/{name}").json()["cache_id"] == cache["id"]
    assert http.get(f"/v1/caching/refs/tags/{name}/content").json() == cache


def test_a_tag_that_exists_is_bound_anew(http: httpx.Client, create: Create) -> None:
    old, new, name = create(), create(), next(_names)
    for cache in (old, new):
        http.post("/v1/caching/refs/tags", json={"tag": name, "cache_id": cache["id"]})
    assert http.get(f"/v1/caching/refs/tags/{name}/content").json()["id"] == new["id"]


def test_tags_are_listed_in_pages(http: httpx.Client, create: Create) -> None:
    cache, names = create(), [next(_names) for _ in range(3)]
    for name in names:
        http.post("/v1/caching/refs/tags", json={"tag": name, "cache_id": cache["id"]})
    page = http.get("/v1/caching/refs/tags", params={"limit": 2}).json()
    assert page["object"] == "list"
    assert [tag["tag"] for tag in page["data"]] == [names[2], names[1]]
    older = http.get("/v1/caching/refs/tags", params={"limit": 1, "after": names[1]}).json()
    assert [tag["tag"] for tag in older["data"]] == [names[0]]


def test_deleting_a_tag_succeeds_also_when_it_never_existed(http: httpx.Client, create: Create) -> None:
    name = next(_names)
    create(tags=[name])
    for _ in range(2):
        reply = http.delete(f"/v1/caching/refs/tags/{name}")
        assert reply.json() == {"deleted": True, "object": "cache_object.tag.deleted", "tag": name}
    reply = http.get(f"/v1/caching/refs/tags/{name}")
    assert reply.status_code == 404
    assert reply.json()["error"]["type"] == "resource_not_found_error"


def test_a_tag_outlives_its_cache(http: httpx.Client, create: Create) -> None:
    name = next(_names)
    cache = create(tags=[name])
    http.delete(f"/v1/caching/{cache['id']}")
    assert http.get(f"/v1/caching/refs/tags/{name}").status_code == 200
    assert http.get(f"/v1/caching/refs/tags/{name}/content").status_code == 404


@pytest.mark.parametrize("tag", ["", "1a", "-a", "a b", "ä", "a" * 129, "a/b", 5, None])
def test_a_wrong_tag_name_is_a_400(tag: object, http: httpx.Client, create: Create) -> None:
    reply = http.post("/v1/caching/refs/tags", json={"tag": tag, "cache_id": create()["id"]})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "tag"


def test_a_tag_on_an_unknown_cache_is_a_404(http: httpx.Client) -> None:
    reply = http.post("/v1/caching/refs/tags", json={"tag": "a", "cache_id": "cache-0"})
    assert reply.status_code == 404
