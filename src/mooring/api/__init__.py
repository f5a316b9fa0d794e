"""Dialects: bytes to core types and back. No decisions are taken here."""
