"""Use cases: who may, what must be kept, what it costs.

Knows the registry, and of the engine only its interface.
"""
