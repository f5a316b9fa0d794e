"""From a model file to a running engine: loads, sizes the buffer, opens the store."""

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mooring.config import EngineConfig, KvStoreConfig
from mooring.core.errors import ModelUnreadable, StartRefused
from mooring.engine.interface import ModelInfo, OnProgress
from mooring.engine.llamacpp.binding import (
    ContextShape,
    Cutting,
    DecodeContext,
    Model,
    StateSize,
    measure_state_size,
)
from mooring.engine.llamacpp.engine import LlamaEngine
from mooring.engine.llamacpp.fingerprint import fingerprint
from mooring.engine.llamacpp.parts import all_parts
from mooring.engine.prompt import Prompter
from mooring.engine.template import ChatTemplate
from mooring.engine.weights import hash_weights
from mooring.kvstore.codec import Rejection
from mooring.kvstore.match import BLOCK_TOKENS
from mooring.kvstore.store import KvStore
from mooring.telemetry import Metrics

_log = logging.getLogger("mooring.engine")
_CELL_GRANULE = 256  # llama.cpp rounds the buffer up to this
_MEMORY_SHARE = 0.25
_RANDOM_WEIGHTS = "random weights"


async def load_engine(
    model_path: Path,
    name: str,
    config: EngineConfig,
    store_config: KvStoreConfig,
    data_dir: Path,
    metrics: Metrics,
    on_progress: OnProgress = lambda _what, _share: None,
) -> LlamaEngine:
    """Load a GGUF and start its decode thread.

    Raises:
        ModelUnreadable: it cannot be loaded, has no chat template, or is of a family not served.
        StartRefused: the configured context does not fit the configured cells.
    """
    model = await asyncio.to_thread(
        Model,
        model_path,
        gpu_layers=config.gpu_layers,
        on_progress=lambda share: on_progress("Loading the model", share),
    )
    template = _chat_template(model)
    state_size = await asyncio.to_thread(
        measure_state_size,
        model,
        kv_type=config.kv_type,
        flash_attention=config.flash_attention,
    )
    shape, context_tokens = _size(model, config, state_size)
    weights_hash = await asyncio.to_thread(
        hash_weights,
        all_parts(model_path),
        data_dir / "weights.json",
        on_progress=lambda share: on_progress("Fingerprinting the weights", share),
    )
    info = ModelInfo(
        name=name,
        context_tokens=context_tokens,
        kv_bytes_per_token=state_size.per_token,
        fingerprint=fingerprint(weights_hash, shape),
        chat_template=model.metadata["tokenizer.chat_template"],
        control_tokens=model.control_tokens,
        random_weights=_RANDOM_WEIGHTS in model.metadata.get("general.description", "").lower(),
    )
    context = await asyncio.to_thread(DecodeContext, model, shape)
    whole = model.sequences.cutting is Cutting.WHOLE
    open_store = partial(_open_store, store_config, data_dir, info, metrics, whole)
    _log_shape(model, shape, info)
    prompter = await asyncio.to_thread(Prompter, template, model, context_tokens)
    return LlamaEngine(
        context,
        info,
        prompter,
        open_store,
        metrics,
        max_queued=config.max_queued,
        automatic=config.automatic_reuse,
        whole=whole,
    )


def _open_store(
    config: KvStoreConfig,
    data_dir: Path,
    info: ModelInfo,
    metrics: Metrics,
    whole: bool,
    wake: Callable[[], None],
) -> KvStore:
    def count_rejection(reason: Rejection) -> None:
        metrics.rejected_kv.labels(reason.value).inc()

    return KvStore(
        data_dir / "kv",
        info.fingerprint,
        config,
        block_tokens=None if whole else BLOCK_TOKENS,
        wake=wake,
        on_rejected=count_rejection,
    )


def _log_shape(model: Model, shape: ContextShape, info: ModelInfo) -> None:
    _log.info(
        "engine ready model=%s layers=%d context_tokens=%d cells=%d kv_bytes_per_token=%d"
        " kv_type=%s flash_attention=%s threads=%d fingerprint=%s",
        info.name,
        model.layers,
        info.context_tokens,
        shape.cells,
        info.kv_bytes_per_token,
        shape.kv_type,
        shape.flash_attention,
        shape.threads,
        info.fingerprint,
    )
    if model.sequences.cutting is Cutting.WHOLE:
        _log.warning(
            "this model %s: caches that were created are reused as a whole, and nothing else is",
            model.sequences.because,
        )


def _chat_template(model: Model) -> ChatTemplate:
    if model.sequences.cutting is Cutting.NOT_SERVED:
        raise ModelUnreadable(f"{model.path} cannot be served: it {model.sequences.because}")
    source = model.metadata.get("tokenizer.chat_template")
    if not source:
        raise ModelUnreadable(f"{model.path} has no chat template: use an instruct or chat model")
    return ChatTemplate(source, bos=model.special_text("bos"), eos=model.special_text("eos"))


def _size(model: Model, config: EngineConfig, state_size: StateSize) -> tuple[ContextShape, int]:
    """The buffer's shape and the most tokens of one request."""
    wanted = config.context_tokens or model.trained_context_tokens
    cells = config.cells
    if cells is None:
        # A windowed layer has as many cells as the others; a recurrent one has none.
        kv_bytes = state_size.per_token + state_size.per_token_in_window
        # Without flash attention the scores of a whole batch against every cell are in memory.
        scores = 0 if config.flash_attention else 4 * config.batch_tokens * model.heads
        affordable = int(_MEMORY_SHARE * _physical_memory_bytes() / max(kv_bytes + scores, 1))
        cells = max(min(2 * wanted, affordable), 2 * _CELL_GRANULE)
    cells = -(-cells // _CELL_GRANULE) * _CELL_GRANULE
    if config.context_tokens is not None and config.context_tokens > cells:
        raise StartRefused(
            f"engine.context_tokens: {config.context_tokens} do not fit into {cells} cells;"
            " lower it or raise engine.cells"
        )
    shape = ContextShape(
        cells=cells + BLOCK_TOKENS,  # where stored blocks come in
        sequences=config.sequences + 1,
        batch_tokens=max(config.batch_tokens, 2 * config.sequences),  # room beside the running answers
        kv_type=config.kv_type,
        flash_attention=config.flash_attention,
        threads=config.threads or _usable_cores(),
    )
    return shape, min(wanted, cells)


def _usable_cores() -> int:
    """Those this process may run on; llama.cpp's threads spin, and more of them than cores crawl."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _physical_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
