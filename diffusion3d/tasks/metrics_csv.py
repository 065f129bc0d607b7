"""metrics.csv: one row per step, one column per figure."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

FLUSH_SECONDS = 5.0


class MetricsCsv:
    """Collects rows and writes them in batches. A figure seen for the first time adds a column to the whole file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns = ["step"]
        if path.exists():
            with path.open(newline="") as file:
                self.columns = next(csv.reader(file), ["step"])
        self._rows: list[dict[str, float]] = []
        self._last_flush = time.monotonic()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Take a row; it is on disk within a few seconds, or after `flush`."""
        self._rows.append({"step": step, **values})
        if time.monotonic() - self._last_flush > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring all rows to disk."""
        self._last_flush = time.monotonic()
        if not self._rows:
            return
        new = [name for name in dict.fromkeys(key for row in self._rows for key in row) if name not in self.columns]
        if new or not self.path.exists():
            before = self._read()
            self.columns += new
            self._replace(before)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerows(self._rows)
        self._rows.clear()

    def drop_from(self, step: int) -> None:
        """Forget the rows of this step and later ones."""
        self.flush()
        if self.path.exists():
            self._replace([row for row in self._read() if row["step"].isdigit() and int(row["step"]) < step])

    def last(self) -> dict[str, float]:
        """The last value of every figure."""
        self.flush()
        found = {name: float(value) for row in self._read() for name, value in row.items() if value}
        return {name: value for name, value in found.items() if name != "step"}

    def total(self, name: str) -> float:
        """The sum of a figure over all rows."""
        self.flush()
        return sum(float(row[name]) for row in self._read() if row.get(name))

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return [row for row in csv.DictReader(file) if None not in row.values()]

    def _replace(self, rows: list[dict[str, str]]) -> None:
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
