"""Who is let in, decided before a byte of the body is read."""

import asyncio
import json

import pytest

from mooring.api.auth import Auth
from mooring.registry.database import Database
from mooring.registry.tenants import Tenants
from mooring.service.tenants import Tenancy

KEY = "sk-12345678"
ADMIN_KEY = "admin-12345678"


@pytest.fixture(autouse=True, scope="module")
def registry(tmp_path_factory):
    """Of keys; there are none in it."""
    global tenants
    database = Database(tmp_path_factory.mktemp("auth") / "registry.sqlite3")
    tenants = Tenants(database)
    yield
    database.close()


def call(api_key, path="/v1/models", host="localhost:8080", authorization=None, kind="http", admin=None):
    """What an app behind Auth and its client see: (app was called, status, error object)."""
    called, sent = [], []

    async def app(scope, receive, send):
        called.append(scope)

    async def receive():
        raise AssertionError("the body was read")

    async def send(message):
        sent.append(message)

    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    if authorization is not None:
        headers.append((b"authorization", authorization))
    scope = {"type": kind, "method": "POST", "path": path, "headers": headers}
    asyncio.run(Auth(app, Tenancy(tenants, api_key), admin)(scope, receive, send))
    if not sent:
        return bool(called), None, None
    body = b"".join(message.get("body", b"") for message in sent)
    return bool(called), sent[0]["status"], json.loads(body)["error"]


LET_IN = (True, None, None)

LOCAL = ["localhost", "127.0.0.1", "[::1]", "127.0.0.2", "LocalHost", "localhost."]


@pytest.mark.parametrize("host", [*LOCAL, *(f"{name}:8080" for name in LOCAL)])
def test_auth_without_a_key_lets_this_machine_in(host):
    assert call(None, host=host) == LET_IN


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example:8080",
        "127.0.0.1.evil.example",
        "evil-localhost",
        "evil:localhost",
        "192.168.1.5:8080",
        "[fe80::1]:8080",
        "[::1].evil.example:80",
        "::1",
        "0.0.0.0:8080",
        ":8080",
        "\xff",
        "",
        None,
    ],
)
def test_auth_without_a_key_refuses_a_foreign_host(host):
    """A name of an attacker's that resolves to 127.0.0.1 makes a browser its tool."""
    called, status, error = call(None, host=host)
    assert (called, status, error["type"]) == (False, 403, "permission_denied_error")
    assert "MOORING_API_KEY" in error["message"]


@pytest.mark.parametrize("host", ["localhost", "evil.example", None])
def test_auth_with_a_key_lets_in_whoever_has_it_by_any_name(host):
    assert call(KEY, host=host, authorization=f"Bearer {KEY}".encode()) == LET_IN


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_auth_takes_the_scheme_in_any_case(scheme):
    assert call(KEY, authorization=f"{scheme} {KEY}".encode()) == LET_IN


@pytest.mark.parametrize(
    "authorization", [None, b"", b"Bearer", b"Bearer ", b"Basic sk-12345678", b"sk-12345678"]
)
def test_auth_with_a_key_asks_who_does_not_send_one(authorization):
    called, status, error = call(KEY, authorization=authorization)
    assert (called, status, error["type"]) == (False, 401, "invalid_authentication_error")
    assert "Authorization: Bearer" in error["message"]


@pytest.mark.parametrize(
    "authorization",
    [
        b"Bearer wrong-key",
        b"Bearer sk-1234567",
        b"Bearer sk-123456789",
        b"Bearer SK-12345678",
        b"Bearer  sk-12345678",
        b"Bearer sk-12345678,",
        b"Bearer \xff\xfe",
    ],
)
def test_auth_with_a_key_refuses_who_does_not_have_it(authorization):
    called, status, error = call(KEY, authorization=authorization)
    assert (called, status, error["type"]) == (False, 401, "incorrect_api_key_error")
    assert KEY not in error["message"]


@pytest.mark.parametrize("api_key", [None, KEY])
def test_auth_lets_everybody_ask_for_health(api_key):
    assert call(api_key, path="/health", host="evil.example") == LET_IN


@pytest.mark.parametrize(
    "path", ["/health/", "/healthz", "//health", "/v1/../health", "/metrics", "/docs"]
)
@pytest.mark.parametrize(("api_key", "status"), [(None, 403), (KEY, 401)])
def test_auth_guards_every_other_path(path, api_key, status):
    assert call(api_key, path=path, host="evil.example")[:2] == (False, status)


def test_auth_leaves_the_servers_own_messages_alone():
    assert call(KEY, kind="lifespan") == LET_IN


@pytest.mark.parametrize("api_key", [None, KEY])
@pytest.mark.parametrize("path", ["/admin/v1/tenants", "/metrics"])
def test_auth_lets_the_admin_key_to_what_operators_need(api_key, path):
    right = f"Bearer {ADMIN_KEY}".encode()
    assert call(api_key, path=path, authorization=right, admin=ADMIN_KEY) == LET_IN


def test_auth_lets_no_other_key_to_admin_paths():
    right = f"Bearer {KEY}".encode()
    for admin in (None, ADMIN_KEY):
        called, status, error = call(KEY, path="/admin/v1/tenants", authorization=right, admin=admin)
        assert (called, status, error["type"]) == (False, 403, "permission_denied_error")
    assert call(None, path="/admin/v1/tenants")[1] == 403
    assert call(KEY, path="/admin/v1/tenants")[1] == 401


def test_auth_lets_the_admin_key_speak_for_no_tenant():
    right = f"Bearer {ADMIN_KEY}".encode()
    called, status, _ = call(KEY, path="/v1/caching", authorization=right, admin=ADMIN_KEY)
    assert (called, status) == (False, 403)
