"""KV tensors as blocks of bytes, in the layouts that attention kernels have; torch is where vLLM is."""

import json
import subprocess

import pytest
from vllm_server import environment, vllm_python

BLOCKS = 6
LAYOUTS = {
    "blocks first": [BLOCKS, 2, 4, 8],
    "keys and values first": [2, BLOCKS, 4, 8],
    "blocks cut for the kernel": [BLOCKS * 2, 2, 2, 8],
    "keys and values first, blocks cut": [2, BLOCKS * 2, 2, 8],
    "compressed": [BLOCKS, 4, 16],
}
PROGRAM = """
import json, sys
import torch
from mooring.engine.vllm.connector.device import DeviceBlocks, UnknownLayout

def layers(shape):
    kinds = [torch.float32, torch.bfloat16]
    return {str(n): torch.randn(shape).to(kind) for n, kind in enumerate(kinds)}

def survives(shape, blocks):
    source, target = layers(shape), layers(shape)
    untouched = {name: tensor.clone() for name, tensor in target.items()}
    a, b = DeviceBlocks(source, blocks), DeviceBlocks(target, blocks)
    payload = a.read([3, 0, 5], None)
    b.write([1, 4], payload, skip=1)  # blocks 0 and 5 of the source
    right = payload.nbytes == 3 * a.block_bytes
    right &= bool((b.read([1, 4], None) == a.read([0, 5], None)).all())
    others = [0, 2, 3, 5]
    before = DeviceBlocks(untouched, blocks)
    return right and bool((b.read(others, None) == before.read(others, None)).all())

def refused(shape, blocks):
    try:
        DeviceBlocks(layers(shape), blocks)
    except UnknownLayout:
        return True
    return False

shapes, blocks = json.loads(sys.argv[1]), int(sys.argv[2])
print(json.dumps({"survive": [survives(shape, blocks) for shape in shapes],
                  "refused": refused([blocks + 1, 2, 4, 8], blocks)}))
"""


@pytest.fixture(scope="module")
def found():
    command = [
        vllm_python(),
        "-W",
        "error",
        "-c",
        PROGRAM,
        json.dumps(list(LAYOUTS.values())),
        str(BLOCKS),
    ]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("number", range(len(LAYOUTS)), ids=LAYOUTS)
def test_blocks_are_read_and_written_whole_and_no_others(found, number):
    assert found["survive"][number]


def test_tensor_without_blocks_is_refused(found):
    assert found["refused"]
