"""Mooring inside vLLM: a KV connector that pins, saves and loads the blocks of explicit contexts.

vLLM imports this module by `kv_connector_module_path` and takes `MooringConnector` from it. The parts
that know nothing of vLLM can be imported without it. Light by design: of Mooring it needs `core.prefix`,
`engine.weights`, `kvstore.codec`, `kvstore.disk` and `kvstore.shared`, and of what vLLM does not bring
along only xxhash.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "MooringConnector":
        from mooring.engine.vllm.connector.connector import MooringConnector

        return MooringConnector
    raise AttributeError(name)
