"""Figures from rows of a table: how every study draws. matplotlib is imported with the first figure, not before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:
    Axes = Figure = Any

__all__ = ["Axes", "Figure", "curve", "known", "panels", "points"]
Row = Mapping[str, Any]


def panels(width: float, height: float, columns: int = 1, rows: int = 1, **how: Any) -> tuple[Figure, list[Axes]]:
    """An empty figure of this size in inches, and its panels row by row; how: what else `subplots` is told."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **how).ravel())


def known(rows: Iterable[Row], *names: str) -> list[Row]:
    """The rows in which none of these is missing."""
    return [r for r in rows if all(r[name] is not None for name in names)]


def curve(axis: Axes, rows: Iterable[Row], x: str, y: str, *style: str, **how: Any) -> Any:
    """The line through the rows where y is known."""
    kept = known(rows, y)
    (line,) = axis.plot([r[x] for r in kept], [r[y] for r in kept], *style, **how)
    return line


def points(axis: Axes, rows: Iterable[Row], x: str, y: str, **how: Any) -> None:
    """Points where y is known, with bars of two of the standard errors in y_se."""
    kept = known(rows, y)
    axis.errorbar([r[x] for r in kept], [r[y] for r in kept], [2 * r[f"{y}_se"] for r in kept], **how)
