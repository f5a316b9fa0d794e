"""How fast this machine is at what, measured as it works: to load or to compute again."""

from dataclasses import dataclass, field

_WEIGHT = 0.2
"""Of a new measurement in the moving average."""
_MARGIN = 0.8
"""Computing must be this much faster than loading before it is preferred: figures are noisy."""


@dataclass
class Rate:
    """A moving average of so much a second; None until something was measured."""

    per_second: float | None = None

    def measured(self, amount: float, seconds: float) -> None:
        if seconds <= 0:
            return
        now = amount / seconds
        known = self.per_second
        self.per_second = now if known is None else known + _WEIGHT * (now - known)

    def seconds(self, amount: float) -> float:
        """How long so much will take; nothing, as long as nobody knows."""
        return 0.0 if self.per_second is None else amount / self.per_second


@dataclass
class Rates:
    """Of the engine; the store knows how fast its tiers are."""

    prefill_tokens: Rate = field(default_factory=Rate)
    import_bytes: Rate = field(default_factory=Rate)

    def worth_loading(self, read_s: float, size_bytes: int, tokens: int) -> bool:
        """Whether stored blocks come sooner from their tier than from the model.

        A hit can lose: restoring from a slow tier took longer than computing in one report
        (2,450 ms against 1,725 ms).
        """
        if self.prefill_tokens.per_second is None:
            return True
        load_s = read_s + self.import_bytes.seconds(size_bytes)
        return self.prefill_tokens.seconds(tokens) > _MARGIN * load_s
