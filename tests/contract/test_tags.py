"""The registry of tags, on a real database."""

import pytest

from mooring.core.context import Page, Tag
from mooring.registry.database import Database
from mooring.registry.tags import Tags


@pytest.fixture
def tags(database: Database) -> Tags:
    return Tags(database)


def names(found) -> list[str]:
    return [tag.name for tag in found]


def test_a_tag_is_bound_once_and_then_bound_anew(tags):
    first = tags.bind(Tag("t", "manual", "cache-1", 100))
    again = tags.bind(Tag("t", "manual", "cache-2", 200))
    assert first == Tag("t", "manual", "cache-1", 100)
    assert again == Tag("t", "manual", "cache-2", 100) == tags.get("t", "manual")


def test_tags_are_the_tenants_own(tags):
    tags.bind(Tag("one", "manual", "cache-1", 1))
    tags.bind(Tag("two", "manual", "cache-2", 2))
    assert tags.get("one", "manual").cache_id == "cache-1"
    tags.delete("two", "manual")
    tags.delete("three", "manual")
    assert names(tags.list("one", Page(10))) == ["manual"]
    assert names(tags.list("two", Page(10))) == []
    assert tags.list("two", Page(10, after="manual")) is None


def test_tags_come_in_pages_of_creation_order(tags):
    for name in "abcde":
        tags.bind(Tag("t", name, "cache-1", 1))
    tags.bind(Tag("t", "a", "cache-2", 9))  # bound anew, it keeps its place
    assert names(tags.list("t", Page(2))) == ["e", "d"]
    assert names(tags.list("t", Page(2, after="d"))) == ["c", "b"]
    assert names(tags.list("t", Page(2, before="b"))) == ["d", "c"]
    assert names(tags.list("t", Page(9, newest_first=False, after="b", before="e"))) == ["c", "d"]


def test_deleting_an_unknown_tag_does_nothing(tags):
    tags.delete("t", "nobody")
    assert tags.get("t", "nobody") is None
