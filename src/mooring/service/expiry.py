"""When a cache ends. Pure: the clock comes in as a number."""

import dataclasses

from mooring.core.context import CacheObject, Status
from mooring.core.errors import InvalidRequest


def choose_end(
    now: int,
    *,
    ttl_s: int | None,
    expired_at: int | None,
    default_ttl_s: int,
    max_ttl_s: int | None,
) -> int:
    """The `expired_at` of a new cache, from what the request says (docs/moonshot-api.md, section 2).

    Raises:
        InvalidRequest: both are given, the end is not in the future, or it is beyond the bound.
    """
    if ttl_s is not None and expired_at is not None:
        raise InvalidRequest("send ttl or expired_at, not both", param="ttl")
    if ttl_s is not None:
        end, param = now + ttl_s, "ttl"
    elif expired_at:  # 0 stands for the default, as leaving it out does
        end, param = expired_at, "expired_at"
    else:
        return now + min(default_ttl_s, max_ttl_s or default_ttl_s)
    if end <= now:
        raise InvalidRequest(f"{param}: must lie in the future (it is {now} now)", param=param)
    if max_ttl_s is not None and end > now + max_ttl_s:
        raise InvalidRequest(
            f"{param}: this server keeps a cache for at most {max_ttl_s} seconds", param=param
        )
    return end


def as_of(cache: CacheObject, now: float) -> CacheObject:
    """The cache as a client sees it: past its end it is `inactive`, swept or not."""
    if cache.expired_at <= now:
        return dataclasses.replace(cache, status=Status.INACTIVE)
    return cache
