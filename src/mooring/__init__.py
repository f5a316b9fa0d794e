"""Mooring: a self-hosted LLM server with context caching."""
