"""metrics.csv: one row per step, in their order, and one column per figure."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffusion3d.files import write_bytes

FLUSH_SECONDS = 5.0


class MetricsCsv:
    """Collects rows and writes them in batches. A figure seen for the first time adds a column to the whole file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns = ["step"]
        self._end = 0
        if path.exists():
            with path.open(newline="") as file:
                self.columns = next(csv.reader(file), ["step"])
            self._end = path.stat().st_size
        self._rows: list[dict[str, Any]] = []  # what belongs behind the file's first `_end` bytes
        self._last_flush = time.monotonic()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Take a row, or more figures of the last row's step; it is on disk within a few seconds, or after `flush`."""
        if self._rows and self._rows[-1]["step"] == step:
            self._rows[-1].update(values)
        else:
            self._rows.append({"step": step, **values})
        if time.monotonic() - self._last_flush > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring all rows to disk. The last one is kept, too: more may come for its step."""
        self._last_flush = time.monotonic()
        if not self._rows:
            return
        new = [name for name in dict.fromkeys(key for row in self._rows for key in row) if name not in self.columns]
        if new or not self.path.exists():
            self._replace(self._read(), [*self.columns, *new])
        else:
            with self.path.open("r+b") as file:
                file.seek(self._end)
                file.write(_text(self._rows, self.columns))
                file.truncate()
        self._end += len(_text(self._rows[:-1], self.columns))
        del self._rows[:-1]

    def drop_from(self, step: int) -> None:
        """Forget the rows of this step and later ones."""
        if not self.path.exists():
            self._rows.clear()
            return
        rows = [row for row in (*self._read(), *self._rows) if str(row["step"]).isdigit() and int(row["step"]) < step]
        self._rows = [{**row, "step": int(row["step"])} for row in rows[-1:]]
        self._replace(rows[:-1], self.columns)

    def last(self) -> dict[str, float]:
        """The last value of every figure."""
        rows = [*self._read(), *self._rows]
        return {name: float(value) for row in rows for name, value in row.items() if value != "" and name != "step"}

    def total(self, name: str) -> float:
        """The sum of a figure over all rows."""
        return sum(float(row[name]) for row in (*self._read(), *self._rows) if row.get(name, "") != "")

    def _read(self) -> list[dict[str, str]]:
        """The rows of the file's first `_end` bytes."""
        if not self.path.exists():
            return []
        text = self.path.read_bytes()[: self._end].decode()
        return [row for row in csv.DictReader(io.StringIO(text, newline="")) if None not in (*row, *row.values())]

    def _replace(self, before: Iterable[Mapping[str, Any]], columns: list[str]) -> None:
        head = _text([dict(zip(columns, columns, strict=True)), *before], columns)
        write_bytes(self.path, head + _text(self._rows, columns))
        self.columns, self._end = columns, len(head)


def _text(rows: Iterable[Mapping[str, Any]], columns: list[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, restval="").writerows(rows)
    return text.getvalue().encode()
