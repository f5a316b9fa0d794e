"""The socket that the server listens on."""

import asyncio
import socket

import pytest

from mooring.core.errors import StartRefused
from mooring.serving import listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_listener_is_a_tcp_socket_and_says_so(host):
    if ":" in host and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with listen(host, 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        assert listener.type == socket.SOCK_STREAM
        assert listener.getsockname()[0] == host


def test_listener_gives_connections_that_send_small_packets_at_once():
    """Else every second packet of a streamed reply waits for the client's acknowledgement."""
    undelayed = []

    async def connected(reader, writer):
        accepted = writer.get_extra_info("socket")
        undelayed.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect(listener):
        server = await asyncio.start_server(connected, sock=listener)
        async with server:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    with listen("127.0.0.1", 0) as listener:
        asyncio.run(connect(listener))
    assert undelayed
    assert all(undelayed)


def test_listener_on_a_taken_port_is_refused_and_names_it():
    with listen("127.0.0.1", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(StartRefused, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
            listen("127.0.0.1", port)
