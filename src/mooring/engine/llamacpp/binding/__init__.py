"""The only package that imports llama_cpp: models, decoding contexts and samplers as objects.

Everything here is mechanism. It decides nothing, and it never trusts a size or an id it was handed.
"""

from mooring.engine.llamacpp.binding.batch import Batch
from mooring.engine.llamacpp.binding.context import ContextShape, DecodeContext
from mooring.engine.llamacpp.binding.library import KV_TYPES, LIBRARY_VERSION, MAX_SEQUENCES
from mooring.engine.llamacpp.binding.model import Model
from mooring.engine.llamacpp.binding.sampler import SamplerChain
from mooring.engine.llamacpp.binding.sequences import Cutting, Sequences
from mooring.engine.llamacpp.binding.state_size import StateSize, measure_state_size

__all__ = [
    "KV_TYPES",
    "LIBRARY_VERSION",
    "MAX_SEQUENCES",
    "Batch",
    "ContextShape",
    "Cutting",
    "DecodeContext",
    "Model",
    "SamplerChain",
    "Sequences",
    "StateSize",
    "measure_state_size",
]
