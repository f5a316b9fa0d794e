"""JSON schemas in grammars (llguidance's Lark)."""

import json
from collections.abc import Mapping
from typing import Any

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}

# Between JSON's tokens; without an end to it, a model can go on with spaces until its tokens are over.
_OPTIONS = {"x-guidance": {"whitespace_pattern": "[ \\n]{0,16}"}}


def inline_json(schema: Mapping[str, Any]) -> str:
    """JSON of a schema, as a part of a rule. Whether it can be followed, the engine finds out."""
    return "%json " + json.dumps({**schema, **_OPTIONS}, ensure_ascii=False)
