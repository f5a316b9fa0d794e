"""The only package that imports llama_cpp: models, decoding contexts and samplers as objects.

Everything here is mechanism. It decides nothing, and it never trusts a size or an id it was handed.
"""

from mooring.engine.llamacpp.binding.batch import Batch
from mooring.engine.llamacpp.binding.context import ContextShape, DecodeContext
from mooring.engine.llamacpp.binding.library import KV_TYPES, LIBRARY_VERSION, MAX_SEQUENCES
from mooring.engine.llamacpp.binding.model import Model
from mooring.engine.llamacpp.binding.sampler import SamplerChain

__all__ = [
    "KV_TYPES",
    "LIBRARY_VERSION",
    "MAX_SEQUENCES",
    "Batch",
    "ContextShape",
    "DecodeContext",
    "Model",
    "SamplerChain",
]
