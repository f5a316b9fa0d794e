"""Configurations that several tests use."""

NAMED_ONLY = "[engine]\nautomatic_reuse = false\n"
"""To tell what a named cache does; else whatever had been said before would be reused as well."""
