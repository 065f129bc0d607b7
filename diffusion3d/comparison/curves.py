"""metrics.csv as curves short enough to draw."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Curve:
    """The course of one figure: the steps at which it is known and its finite values."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def shortened(self, points: int) -> Curve:
        """At most so many points, each the mean of as many neighbours (the last of as many as are left).

        >>> Curve([0, 1, 2, 3, 4], [1, 3, 5, 7, 9]).shortened(3)
        Curve(steps=[0.5, 2.5, 4.0], values=[2.0, 6.0, 9.0])
        """
        each = math.ceil(len(self.steps) / points)
        parts = [slice(start, start + each) for start in range(0, len(self.steps), each)]
        return Curve([_mean(self.steps[part]) for part in parts], [_mean(self.values[part]) for part in parts])


def read_curves(path: Path | None) -> dict[str, Curve]:
    """{figure: curve} of a metrics.csv; lines that are torn and values that are no finite numbers are left out."""
    curves: dict[str, Curve] = {}
    if path is None:
        return curves
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = _whole_rows(file)
        columns = next(rows, [])
        if "step" not in columns:
            return curves
        at = columns.index("step")
        for row in rows:
            step = _number(row[at])
            for name, text in zip(columns, row, strict=True):
                value = _number(text)
                if name != "step" and step is not None and value is not None:
                    curve = curves.setdefault(name, Curve())
                    curve.steps.append(step)
                    curve.values.append(value)
    return curves


def _whole_rows(file: Iterator[str]) -> Iterator[list[str]]:
    try:
        columns: list[str] | None = None
        for row in csv.reader(line.replace("\0", "") for line in file):
            columns = columns or row
            if len(row) == len(columns):
                yield row
    except csv.Error:
        return


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
