"""The names of cache objects."""

import re

from mooring.core.context import new_cache_id


def test_new_cache_id_is_cache_and_twenty_lower_case_letters_and_digits():
    ids = [new_cache_id() for _ in range(200)]
    assert all(re.fullmatch(r"cache-[a-z0-9]{20}", cache_id) for cache_id in ids)


def test_new_cache_ids_do_not_repeat():
    ids = [new_cache_id() for _ in range(200)]
    assert len(set(ids)) == len(ids)
