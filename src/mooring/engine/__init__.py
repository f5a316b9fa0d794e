"""Tokens in, tokens out. Knows prompts, prefixes and sequences; nothing of HTTP or SQL."""
