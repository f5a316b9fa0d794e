"""Which model names are served: the loaded model's own and its aliases."""

from dataclasses import dataclass

from mooring.core.errors import ModelNotFound


@dataclass(frozen=True)
class Models:
    """The loaded model and the names it answers to."""

    name: str
    aliases: tuple[str, ...]
    loaded_at: int
    """Unix seconds."""

    @property
    def names(self) -> list[str]:
        return [self.name, *(alias for alias in self.aliases if alias != self.name)]

    def check(self, name: str) -> None:
        """Raises ModelNotFound."""
        if name not in self.names:
            raise ModelNotFound(name, self.names)
