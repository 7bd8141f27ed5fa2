"""What a part of the campaign has found."""

from __future__ import annotations

import attrs


@attrs.define
class Report:
    """What was tried, and what broke.

    Attributes:
        figures: What was counted and measured, by name; shown in this order.
        defects: A line for each promise that was broken, with the seed and the trial that break it again.
        is_interrupted: Whether somebody ended it before its time.
        table: Lines of a table in Markdown, as the page on the campaign has it.
    """

    figures: dict[str, str] = attrs.field(factory=dict)
    defects: list[str] = attrs.field(factory=list)
    is_interrupted: bool = False
    table: list[str] = attrs.field(factory=list)

    def lines(self) -> list[str]:
        wide = max(map(len, self.figures), default=0)
        return [
            *(f"  {name:{wide}}  {figure}" for name, figure in self.figures.items()),
            *(["", *self.table, ""] if self.table else []),
            *(f"  DEFECT: {defect}" for defect in self.defects),
        ]
