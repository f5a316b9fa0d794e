"""The device's KV tensors as blocks of bytes: layer after layer, each layer's blocks in order."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

# Stored bytes are read-only, and only read from here: torch has no read-only tensors and says so.
warnings.filterwarnings("ignore", message="The given (NumPy array|buffer) is not writable")


class UnknownLayout(Exception):
    """A KV tensor in which blocks cannot be told."""


class DeviceBlocks:
    """Reads and writes whole blocks of all layers."""

    def __init__(self, kv_caches: Mapping[str, torch.Tensor], num_blocks: int) -> None:
        """Raises UnknownLayout."""
        self._layers = [_blocks_first(name, tensor, num_blocks) for name, tensor in kv_caches.items()]
        self._sizes = [layer[0].numel() * layer.element_size() for layer in self._layers]
        self.block_bytes = sum(self._sizes)
        self._cuda = any(layer.is_cuda for layer in self._layers)

    def fence(self) -> "torch.cuda.Event | None":
        """What has been started on the device up to here; None where nothing runs by itself."""
        if not self._cuda:
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream())
        return event

    def read(self, block_ids: Sequence[int], fence: "torch.cuda.Event | None") -> NDArray[np.uint8]:
        """The bytes of these blocks, as they are after the fence."""
        if fence is not None:
            fence.synchronize()
        payload = torch.empty(len(block_ids) * self.block_bytes, dtype=torch.uint8)
        index = torch.tensor(block_ids)
        start = 0
        for layer, size in zip(self._layers, self._sizes, strict=True):
            end = start + len(block_ids) * size
            target = payload[start:end].view(layer.dtype).view(len(block_ids), *layer.shape[1:])
            target.copy_(layer[index.to(layer.device)])
            start = end
        array: NDArray[np.uint8] = payload.numpy()
        return array

    def write(self, block_ids: Sequence[int], payload: NDArray[np.uint8], skip: int = 0) -> None:
        """Fill these blocks from the payload's [skip, skip + n); returns when the device has them."""
        source = torch.from_numpy(payload)
        count = source.numel() // self.block_bytes
        assert source.numel() == count * self.block_bytes
        index = torch.tensor(block_ids)
        start = 0
        for layer, size in zip(self._layers, self._sizes, strict=True):
            end = start + count * size
            blocks = source[start:end].view(layer.dtype).view(count, *layer.shape[1:])
            taken = blocks[skip : skip + len(block_ids)]
            layer[index.to(layer.device)] = taken.to(layer.device)
            start = end
        if self._cuda:
            torch.cuda.current_stream().synchronize()


def _blocks_first(name: str, tensor: torch.Tensor, num_blocks: int) -> torch.Tensor:
    """A view of shape [num_blocks, ...].

    Layouts differ in whether keys and values come before blocks, and an attention kernel may cut a
    block into smaller ones.
    """
    dimension = (
        1 if tensor.dim() > 1 and tensor.shape[0] == 2 and tensor.shape[1] % num_blocks == 0 else 0
    )
    if tensor.shape[dimension] % num_blocks or not tensor.shape[dimension]:
        raise UnknownLayout(
            f"{name} of shape {tuple(tensor.shape)} has no dimension of {num_blocks} blocks"
        )
    parts = tensor.shape[dimension] // num_blocks
    if parts > 1:
        tensor = tensor.unflatten(dimension, (num_blocks, parts))
    return tensor.movedim(dimension, 0)
