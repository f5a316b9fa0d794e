"""Which names mean this machine."""

import pytest

from mooring.core.address import is_loopback


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "[::1]", "localhost", "LocalHost."]
)
def test_loopback_is_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "192.168.1.5",
        "example.org",
        "",
        ".",
        "localhost.evil.example",
        "127.1",
        "2130706433",
    ],
)
def test_nothing_else_is(host):
    assert not is_loopback(host)
