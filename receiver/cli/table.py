"""Floor 5, assembly: a table that fits the terminal. Of rich only what measures a character.

An id is there to be copied, so it is never cut nor broken, and neither is a number, a time or a
state. Texts give way first, then columns, from the last one; the first one always stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size

GAP: Final = 2
SHORTEST: Final = 12  # cells that a text keeps


@dataclass(frozen=True, slots=True)
class Column:
    """One column, from its name to its last cell. `text`: it may be cut; `number`: to the right."""

    name: str
    cells: tuple[str, ...]
    text: bool = False
    number: bool = False

    @property
    def natural(self) -> int:
        """Cells of its longest entry."""
        return max(map(cell_len, (self.name, *self.cells)))

    @property
    def least(self) -> int:
        """Cells without which it does not say anything."""
        enough = max(SHORTEST, cell_len(self.name)) if self.text else self.natural
        return min(self.natural, enough)


def laid_out(columns: Sequence[Column], width: int | None) -> tuple[list[str], list[str]]:
    """The lines of a table, its head first, and the names of the columns that it has no room for.

    No line has more than `width` cells, unless the first column alone has more. None: no limit.
    """
    shown = list(columns)
    while width is not None and len(shown) > 1 and _total([one.least for one in shown]) > width:
        shown.pop()
    widths = _widths(shown, width)
    sized = [
        [_sized(cell, size, column) for cell in (column.name, *column.cells)]
        for column, size in zip(shown, widths, strict=True)
    ]
    lines = [(" " * GAP).join(row).rstrip() for row in zip(*sized, strict=True)]
    return lines, [column.name for column in columns[len(shown) :]]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _widths(columns: Sequence[Column], width: int | None) -> list[int]:
    widths = [column.natural for column in columns]
    while width is not None and _total(widths) > width:
        room = [size - column.least for size, column in zip(widths, columns, strict=True)]
        if not any(room):
            break
        # The longest text gives way first, so that short ones stay whole.
        given = max((n for n, spare in enumerate(room) if spare), key=lambda n: widths[n])
        widths[given] -= 1
    return widths


def _sized(cell: str, size: int, column: Column) -> str:
    taken = cell_len(cell)
    if taken > size:
        return set_cell_size(cell, size - 1) + "…"
    space = " " * (size - taken)
    return space + cell if column.number else cell + space
