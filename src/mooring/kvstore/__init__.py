"""Keyed, immutable KV bytes in tiers. Knows bytes and files; nothing of models or tokens."""
