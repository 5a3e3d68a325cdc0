"""How strict a check is. Light to import: the command line's help reads it."""

from __future__ import annotations

from dataclasses import dataclass

from ...common.errors import UserError

FEWEST_SEEDS = 20  # of a cell of a baseline that is written; with fewer, what five new seeds can show is little


@dataclass(frozen=True)
class Options:
    """How strict a check is.

    margin, effect: shares of the size of the baseline's mean: how much worse the true mean may be, and the drop for which the
    power is said. error_rate: the chance of any false alarm, over all cells. seeds: new seeds that a cell must have.
    sequential: look after every seed from there to this many, and stop once it is decided; None: look once.
    """

    margin: float = 0.02
    effect: float = 0.1
    error_rate: float = 0.05
    seeds: int = 5
    sequential: int | None = None
    vitals: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.margin < self.effect:
            raise UserError(f"--margin {self.margin:g}: expected 0 or more, and less than --effect ({self.effect:g})")
        if not 0 < self.error_rate < 1:
            raise UserError(f"--error-rate {self.error_rate:g}: expected a probability, such as 0.05")
        if self.seeds < 1:
            raise UserError(f"--seeds {self.seeds}: ask for at least 1 new seed")
        if self.sequential is not None and self.sequential <= self.seeds:
            raise UserError(f"--sequential {self.sequential}: expected more than --seeds ({self.seeds}), the first look")

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of seeds after which one looks; none where one looks once."""
        return () if self.sequential is None else tuple(range(self.seeds, self.sequential + 1))
