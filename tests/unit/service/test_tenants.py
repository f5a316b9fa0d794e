"""Whom a key speaks for, by clocks that the test sets."""

import pytest

from mooring.core.errors import (
    AuthenticationFailed,
    InvalidRequest,
    KeyNotFound,
    NotAuthenticated,
    TenantNotFound,
)
from mooring.core.tenant import DEFAULT_TENANT
from mooring.registry.tenants import Tenants
from mooring.service.tenants import Tenancy

pytestmark = pytest.mark.anyio
NOW = 1_720_000_000
STATIC = "a-configured-key"


class Time:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def timer() -> Time:
    return Time()


@pytest.fixture
def tenancy(database, clock, timer) -> Tenancy:
    return Tenancy(Tenants(database), STATIC, clock, timer)


async def refused(tenancy: Tenancy, secret: str) -> bool:
    try:
        await tenancy.authenticate(secret)
    except AuthenticationFailed:
        return True
    return False


async def test_a_key_speaks_for_its_tenant(tenancy):
    await tenancy.create("north", "The north quay")
    made = await tenancy.issue_key("north", "cranes")
    assert await tenancy.authenticate(made.secret) == "north"
    assert await tenancy.authenticate(STATIC) == DEFAULT_TENANT


async def test_no_key_and_a_wrong_key_are_told_apart(tenancy):
    with pytest.raises(NotAuthenticated):
        await tenancy.authenticate("")
    for secret in ("mk-wrong", STATIC + "x", STATIC[:-1], "\xff"):
        assert await refused(tenancy, secret)


async def test_the_secret_is_kept_nowhere(tenancy, tmp_path):
    await tenancy.create("north")
    made = await tenancy.issue_key("north")
    assert len(made.secret) > 40
    for path in tmp_path.iterdir():
        assert made.secret.encode() not in path.read_bytes()
    assert made.secret not in repr(await tenancy.keys("north"))
    assert made.secret.startswith(made.key.hint)


async def test_a_key_ends_to_the_second(tenancy, clock):
    await tenancy.create("north")
    made = await tenancy.issue_key("north", ttl_s=10)
    clock.now = NOW + 9.9
    assert await tenancy.authenticate(made.secret) == "north"
    clock.now = NOW + 10
    assert await refused(tenancy, made.secret)


async def test_a_key_revoked_here_is_refused_at_once(tenancy):
    await tenancy.create("north")
    made = await tenancy.issue_key("north")
    await tenancy.authenticate(made.secret)
    assert (await tenancy.revoke_key(made.key.id)).revoked_at == NOW
    assert await refused(tenancy, made.secret)


async def test_a_key_revoked_elsewhere_is_refused_within_seconds(tenancy, database, timer):
    await tenancy.create("north")
    made = await tenancy.issue_key("north")
    await tenancy.authenticate(made.secret)
    await Tenancy(Tenants(database)).revoke_key(made.key.id)
    timer.now += 5
    assert await refused(tenancy, made.secret)


async def test_a_revocation_keeps_its_first_moment(tenancy, clock):
    await tenancy.create("north")
    made = await tenancy.issue_key("north")
    await tenancy.revoke_key(made.key.id)
    clock.now = NOW + 50
    assert (await tenancy.revoke_key(made.key.id)).revoked_at == NOW


async def test_a_disabled_tenants_keys_are_refused_until_it_is_enabled(tenancy):
    await tenancy.create("north")
    made = await tenancy.issue_key("north")
    await tenancy.authenticate(made.secret)
    await tenancy.update("north", disabled=True)
    assert await refused(tenancy, made.secret)
    await tenancy.update("north", disabled=False, name="again")
    assert await tenancy.authenticate(made.secret) == "north"


async def test_a_server_without_keys_is_open_until_the_first_is_made(database, timer):
    tenancy = Tenancy(Tenants(database), timer=timer)
    assert await tenancy.is_open()
    made = await Tenancy(Tenants(database)).issue_key(DEFAULT_TENANT)
    timer.now += 5
    assert not await tenancy.is_open()
    await tenancy.revoke_key(made.key.id)
    timer.now += 5
    assert not await tenancy.is_open(), "once closed, it stays closed"
    assert not await Tenancy(Tenants(database)).is_open()


async def test_a_key_made_here_closes_the_door_at_once(database):
    tenancy = Tenancy(Tenants(database))
    assert await tenancy.is_open()
    await tenancy.issue_key(DEFAULT_TENANT)
    assert not await tenancy.is_open()


@pytest.mark.parametrize("tenant_id", ["", "North", "-a", "a b", "a" * 64, "ä", "a/b"])
async def test_a_malformed_id_is_refused(tenancy, tenant_id):
    with pytest.raises(InvalidRequest):
        await tenancy.create(tenant_id)


async def test_an_id_is_taken_once(tenancy):
    await tenancy.create("north")
    with pytest.raises(InvalidRequest, match="already"):
        await tenancy.create("north")


async def test_what_is_not_there_is_not_found(tenancy):
    for work in (
        tenancy.get("nobody"),
        tenancy.issue_key("nobody"),
        tenancy.keys("nobody"),
        tenancy.update("nobody", name="x"),
    ):
        with pytest.raises(TenantNotFound):
            await work
    await tenancy.create("north")
    await tenancy.create("south")
    made = await tenancy.issue_key("north")
    for work in (tenancy.revoke_key("key-0"), tenancy.revoke_key(made.key.id, "south")):
        with pytest.raises(KeyNotFound):
            await work
