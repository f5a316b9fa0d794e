"""From configuration to a running engine: reads the model's folder, finds the workers fit."""

import asyncio
import logging

from mooring.config import Config
from mooring.core.errors import StartRefused
from mooring.engine.interface import ModelInfo, OnProgress
from mooring.engine.prompt import Prompter
from mooring.engine.vllm.cluster import Cluster
from mooring.engine.vllm.engine import VllmEngine
from mooring.engine.vllm.generating import Generating
from mooring.engine.vllm.keeping import Keeping
from mooring.engine.vllm.kv_size import kv_bytes_per_token
from mooring.engine.vllm.model_files import ModelFiles, find_folder, read_model
from mooring.engine.vllm.worker import Identity
from mooring.telemetry import ClusterMetrics

_log = logging.getLogger("mooring.engine")


async def start_cluster(
    settings: Config,
    metrics: ClusterMetrics,
    on_progress: OnProgress = lambda _what, _share: None,
) -> VllmEngine:
    """Serve a model that vLLM workers have loaded.

    Raises:
        ModelUnreadable: the folder has no tokenizer or chat template that can be used.
        StartRefused: no worker is configured or can be used, or two serve different things.
    """
    source, config = settings.model.source, settings.vllm
    if not config.workers:
        raise StartRefused("vllm.workers: the vLLM engine needs the URL of at least one (--worker)")
    if source is None:
        raise StartRefused(
            "model.source: the vLLM engine needs the folder of the workers' model, or hf:owner/repo,"
            " for its tokenizer and chat template (--model)"
        )
    on_progress("Reading the tokenizer", 0.0)
    files = read_model(await asyncio.to_thread(find_folder, source))
    on_progress("Reading the tokenizer", 1.0)
    cluster = Cluster(config, files.vocabulary, metrics)
    keeping = Keeping(cluster, metrics, config.pin_lease_s)
    try:
        identity = await cluster.begin(keeping.welcome)
        info = _info(files, identity)
    except BaseException:
        await cluster.close_connections()
        raise
    generating = Generating(cluster, keeping, files.vocabulary, settings, metrics)
    prompter = Prompter(files.template, files.vocabulary, identity.context_tokens)
    _log.info(
        "cluster ready model=%s workers=%d up=%d context_tokens=%d block_tokens=%d fingerprint=%s",
        info.name,
        len(cluster.members),
        len(cluster.up),
        identity.context_tokens,
        identity.block_tokens,
        info.fingerprint,
    )
    return VllmEngine(cluster, keeping, generating, prompter, info)


def _info(files: ModelFiles, identity: Identity) -> ModelInfo:
    return ModelInfo(
        name=identity.model.rstrip("/").rpartition("/")[2],
        context_tokens=identity.context_tokens,
        kv_bytes_per_token=kv_bytes_per_token(files.config),
        fingerprint=identity.fingerprint,
        random_weights=files.random_weights,
        chat_template=files.template_source,
        control_tokens=files.vocabulary.control_tokens,
    )
