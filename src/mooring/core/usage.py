"""What a request cost the engine, as the engine counted it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Token counts of one chat."""

    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that were not evaluated for this request: prompt_tokens minus those that were."""
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens
