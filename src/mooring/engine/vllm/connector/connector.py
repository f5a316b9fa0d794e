"""The connector as vLLM sees it: each hook hands over to the scheduler's or the worker's side.

Signatures are vLLM's, and `hooks.py` says which of them are relied on.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorTransferResults,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)
from vllm.logger import init_logger
from vllm.v1.request import RequestStatus

from mooring.engine.vllm.connector.blocks import HeldBlocks
from mooring.engine.vllm.connector.device import DeviceBlocks
from mooring.engine.vllm.connector.fingerprint import fingerprint
from mooring.engine.vllm.connector.geometry import Geometry
from mooring.engine.vllm.connector.library import Library
from mooring.engine.vllm.connector.messages import KEY, Outcome, Step
from mooring.engine.vllm.connector.pins import Pins, reserved_blocks
from mooring.engine.vllm.connector.refusals import StartRefused, check_start
from mooring.engine.vllm.connector.scheduler import ContextScheduler
from mooring.engine.vllm.connector.settings import open_store, read_settings
from mooring.engine.vllm.connector.worker import ContextWorker

log = init_logger("vllm.mooring")


def _log_with_vllm() -> None:
    """vLLM shows what is below its own name only."""
    ours, theirs = logging.getLogger("mooring"), logging.getLogger("vllm")
    ours.handlers, ours.propagate = theirs.handlers, False
    ours.setLevel(theirs.level)


@dataclass
class StepMetadata(KVConnectorMetadata):
    """Scheduler to worker."""

    step: Step = field(default_factory=Step)


@dataclass
class OutcomeMetadata(KVConnectorWorkerMetadata):
    """Worker to scheduler."""

    outcome: Outcome = field(default_factory=Outcome)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> "OutcomeMetadata":
        assert isinstance(other, OutcomeMetadata)
        self.outcome.saved |= other.outcome.saved
        self.outcome.failed_loads |= other.outcome.failed_loads
        return self


class MooringConnector(KVConnectorBase_V1, SupportsHMA):
    """One object in vLLM's scheduler and one in its worker, each with the other's half unused."""

    requires_kv_delivery = (
        False  # a preempted request may finish: what is saved is held by the connector
    )

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        """Refuses to start rather than to serve what it cannot."""
        super().__init__(vllm_config, role, kv_cache_config)
        _log_with_vllm()
        self._settings = read_settings(vllm_config.kv_transfer_config.kv_connector_extra_config)
        check_start(vllm_config, kv_cache_config, vllm.__version__, self._settings)
        versions = [f"vllm={vllm.__version__}", f"torch={torch.__version__}"]
        self._fingerprint = fingerprint(vllm_config, kv_cache_config, versions, self._settings.weights)
        self._store = open_store(self._settings, self._fingerprint)
        self._scheduler: ContextScheduler | None = None
        self._worker: ContextWorker | None = None

    # --- the scheduler's side

    def bind_gpu_block_pool(self, gpu_block_pool: Any) -> None:
        block_tokens = self._vllm_config.cache_config.block_size
        reserved = reserved_blocks(self._vllm_config.model_config.max_model_len, block_tokens)
        budget = gpu_block_pool.num_gpu_blocks - 1 - reserved  # one block of the pool is a placeholder
        if self._settings.pin_blocks is not None:
            budget = min(budget, self._settings.pin_blocks)
        if budget <= 0:
            log.warning("no room for pins: one request of the greatest length needs all device blocks")
        block_bytes = self._block_bytes()
        geometry = Geometry(
            self._fingerprint,
            block_tokens,
            block_bytes,
            object_blocks=max(1, ceil(self._settings.object_bytes / block_bytes)),
        )
        library = Library(
            self._store,
            self._settings.tier,
            orphan_age_s=self._settings.orphan_age_s,
            maintenance_s=self._settings.maintenance_s,
        )
        held = HeldBlocks(gpu_block_pool, Pins(budget))
        self._scheduler = ContextScheduler(held, library, geometry, strict=self._settings.strict)
        log.info(
            "Mooring: tier=%s fingerprint=%s pin_budget_blocks=%d",
            library.tier,
            self._fingerprint,
            budget,
        )

    def _block_bytes(self) -> int:
        (group,) = self._kv_cache_config.kv_cache_groups
        return int(group.kv_cache_spec.page_size_bytes) * len(group.layer_names)

    @property
    def _contexts(self) -> ContextScheduler:
        assert self._scheduler is not None, "vLLM binds the block pool first"
        return self._scheduler

    def on_new_request(self, request: Any) -> None:
        self._contexts.arrived(request)

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        tokens = self._contexts.matched(request, num_computed_tokens)
        return tokens, bool(tokens)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        (block_ids,) = blocks.get_block_ids()
        self._contexts.allocated(request, block_ids, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> StepMetadata:
        return StepMetadata(self._contexts.take_step())

    def update_connector_output(self, connector_output: Any) -> None:
        if connector_output.kv_connector_worker_meta is not None:
            self._contexts.heard(connector_output.kv_connector_worker_meta.outcome)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        in_order = request.status in (
            RequestStatus.FINISHED_STOPPED,
            RequestStatus.FINISHED_LENGTH_CAPPED,
        )
        report = self._contexts.finished(request, block_ids, in_order=in_order)
        return False, None if report is None else {KEY: report}

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished(request, block_ids[0])

    def has_pending_push_work(self) -> bool:
        return self._contexts.needs_steps

    # --- the worker's side

    def register_kv_caches(self, kv_caches: Mapping[str, torch.Tensor]) -> None:
        device = DeviceBlocks(kv_caches, self._kv_cache_config.num_blocks)
        if device.block_bytes != self._block_bytes():
            raise StartRefused(
                f"a block has {device.block_bytes} bytes here, {self._block_bytes()} in vLLM's plan:"
                " this KV cache is not understood"
            )
        self._worker = ContextWorker(self._store, device)

    @property
    def _bytes(self) -> ContextWorker:
        assert self._worker is not None, "vLLM registers its KV caches first"
        return self._worker

    @property
    def _now(self) -> Step:
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, StepMetadata)
        return metadata.step

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        self._bytes.begin_loads(self._now)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Loads end between steps, never in one."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Saves begin when a request has ended."""

    def wait_for_save(self) -> None:
        self._bytes.begin_saves(self._now)

    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        ended, failed = self._bytes.take_loaded()
        return KVConnectorTransferResults(finished_recving=ended, failed_recving=failed)

    def build_connector_worker_meta(self) -> OutcomeMetadata | None:
        outcome = self._bytes.take_outcome()
        return None if outcome is None else OutcomeMetadata(outcome)

    def shutdown(self) -> None:
        if self._scheduler is not None:
            self._scheduler.close()
        if self._worker is not None:
            self._worker.close()
