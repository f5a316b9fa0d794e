"""Prompts and prefixes from the bytes they travel as: a prefix that many prompts begin with, once.

Making tens of thousands of ints takes most of a millisecond, comparing as many bytes a few microseconds.
"""

from collections import OrderedDict
from dataclasses import replace

from mooring.core.prefix import Prefix, unpack
from mooring.engine.interface import Generation
from mooring.engine.process.messages import Generate, PackedPrefix

_MOST_TOKENS = 1_000_000  # about 40 MB


class Unpacking:
    """Remembers the prefixes that came last."""

    def __init__(self, most_tokens: int = _MOST_TOKENS) -> None:
        self._most_tokens = most_tokens
        self._tokens = 0
        self._prefixes: OrderedDict[str, Prefix] = OrderedDict()
        """By id, used last at the end."""

    def prefix(self, packed: PackedPrefix) -> Prefix:
        prefix = self._prefixes.get(packed.id)
        if prefix is None:
            prefix = Prefix(packed.scope, unpack(packed.tokens))
            # Where `cached_property` would put them.
            vars(prefix).update(id=packed.id, label=packed.tokens)
            self._prefixes[packed.id] = prefix
            self._tokens += len(prefix)
            while self._tokens > self._most_tokens and len(self._prefixes) > 1:
                _, forgotten = self._prefixes.popitem(last=False)
                self._tokens -= len(forgotten)
        self._prefixes.move_to_end(packed.id)
        return prefix

    def generation(self, ask: Generate) -> Generation:
        prompt = unpack(ask.prompt)
        prefix = None if ask.prefix is None else self.prefix(ask.prefix)
        if prefix is not None and ask.continues:  # the same int objects: quickly compared, too
            prompt = prefix.tokens + prompt
        return replace(ask.rest, prompt=prompt, prefix=prefix)
