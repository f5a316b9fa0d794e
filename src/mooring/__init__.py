"""Mooring: a self-hosted LLM server with context caching."""

__version__ = "0.1.0"
