"""A real Mooncake on loopback: a master and nodes, each a process that can be killed."""

import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from mooring.kvstore.shared.mooncake_client import MooncakeClient, MooncakeConfig
from mooring.testing.port import free_port

HANG_S = 60
CLIENT_TTL_S = 5
"""After it the master no longer counts on a dead node."""

_NODE = """
import sys, time
from mooncake.store import MooncakeDistributedStore
store = MooncakeDistributedStore()
code = store.setup(dict(
    local_hostname="127.0.0.1", metadata_server="P2PHANDSHAKE", global_segment_size=sys.argv[2],
    local_buffer_size="16777216", protocol="tcp", rdma_devices="", master_server_addr=sys.argv[1],
))
print("ready" if code == 0 else f"code {code}", flush=True)
while True:
    time.sleep(60)
"""


class MooncakeCluster:
    """A context manager that ends all of it."""

    def __init__(self, folder: Path, nodes: int = 2, node_bytes: int = 64 << 20) -> None:
        pytest.importorskip("mooncake.store", exc_type=ImportError)
        self._folder = folder
        self._node_bytes = node_bytes
        self.master, self.admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self._processes: list[subprocess.Popen] = []
        self.nodes: list[subprocess.Popen] = []
        self._start_master()
        for _ in range(nodes):
            self.add_node()

    def _start_master(self) -> None:
        program = Path(sys.executable).with_name("mooncake_master")
        ports = {"rpc_port": self.master, "metrics_port": self.admin}
        command = [program, *(f"--{name}={at.rpartition(':')[2]}" for name, at in ports.items())]
        command += ["--rpc_address=127.0.0.1", "--metrics_host=127.0.0.1"]
        command += [f"--client_ttl={CLIENT_TTL_S}"]
        self._start(command, "master")

    def add_node(self) -> None:
        name = f"node-{len(self.nodes)}-{uuid.uuid4().hex[:4]}"
        process = self._start([sys.executable, "-c", _NODE, self.master, str(self._node_bytes)], name)
        log, end = self._folder / f"{name}.log", time.monotonic() + HANG_S
        while "ready" not in log.read_text(errors="replace"):
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < end, log.read_text(errors="replace")
            time.sleep(0.1)
        self.nodes.append(process)

    def kill_node(self) -> None:
        """As when a machine is lost."""
        process = self.nodes.pop(0)
        process.kill()
        process.wait()

    def wait_until_whole(self) -> None:
        """Until the master has noticed every death, and every object has two replicas."""
        time.sleep(CLIENT_TTL_S + 1)
        client, end = MooncakeClient(MooncakeConfig(**self.settings())), time.monotonic() + HANG_S
        while not all(client.is_whole(name) for name in client.names("")):
            assert time.monotonic() < end
            time.sleep(0.2)
        client.close()

    def kill_master(self) -> None:
        self._processes[0].kill()
        self._processes[0].wait()

    def _start(self, command: list, name: str) -> subprocess.Popen:
        with (self._folder / f"{name}.log").open("wb") as sink:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        self._processes.append(process)
        return process

    def settings(self, **more) -> dict:
        """As the connector's configuration has them."""
        return {"master": self.master, "admin": self.admin, "buffer_bytes": 32 << 20} | more

    def __enter__(self) -> "MooncakeCluster":
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
