"""Runs in the peer's virtual environment: `peer_server.py MODEL SETTINGS`, settings as JSON.

Prints the address and serves until its standard input closes.
"""

import json
import sys

import xllamacpp as llama

_FLASH = {
    "off": llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    "on": llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "auto": llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_AUTO,
}


def main() -> None:
    given = json.loads(sys.argv[2])
    params = llama.CommonParams()
    params.model.path = sys.argv[1]
    params.port = 0
    params.n_ctx = given["n_ctx"]
    params.n_parallel = given["slots"]
    params.kv_unified = given["unified"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = given["threads"]
    params.flash_attn_type = _FLASH[given["flash_attention"]]
    params.cache_ram_mib = given["cache_ram_mib"]
    params.cache_idle_slots = given["cache_idle_slots"]
    params.fit_params = False
    params.endpoint_metrics = True
    params.ui = False
    server = llama.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
