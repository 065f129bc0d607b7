import csv
import errno

import pytest

from diffusion3d.tasks import metrics_csv
from diffusion3d.tasks.metrics_csv import MetricsCsv


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_are_the_union_of_all_rows(tmp_path):
    table = MetricsCsv(tmp_path / "m.csv")
    table.add(0, {"a": 0.1})
    table.flush()
    table.add(1, {"a": 1e-17, 'odd, "name"': 2.0})
    table.add(2, {"b": 3.0})
    table.flush()
    assert rows(table.path) == [
        {"step": "0", "a": "0.1", 'odd, "name"': "", "b": ""},
        {"step": "1", "a": "1e-17", 'odd, "name"': "2.0", "b": ""},
        {"step": "2", "a": "", 'odd, "name"': "", "b": "3.0"},
    ]


def test_rows_reach_the_disk_by_themselves(tmp_path, monkeypatch):
    table = MetricsCsv(tmp_path / "m.csv")
    table.add(0, {"a": 1.0})
    assert not table.path.exists()
    monkeypatch.setattr(metrics_csv, "FLUSH_SECONDS", -1.0)
    table.add(1, {"a": 2.0})
    assert len(rows(table.path)) == 2


def test_a_resumed_table_ends_as_an_undisturbed_one(tmp_path):
    def write(table, steps):
        for step in steps:
            table.add(step, {"a": step / 3, **({"late": 1.0} if step > 3 else {})})
        table.flush()

    whole, cut = MetricsCsv(tmp_path / "whole.csv"), MetricsCsv(tmp_path / "cut.csv")
    write(whole, range(9))
    write(cut, range(6))
    with cut.path.open("a") as file:
        file.write("6,0.")  # a row that a kill cut short
    again = MetricsCsv(cut.path)
    again.drop_from(3)
    write(again, range(3, 9))
    assert again.path.read_text() == whole.path.read_text()


def test_more_figures_of_the_last_step_join_its_row_on_disk_or_not_and_after_a_resume(tmp_path):
    table = MetricsCsv(tmp_path / "m.csv")
    table.add(0, {"a": 1.0})
    table.add(0, {"score": 5.0})
    table.add(1, {"a": 2.0})
    table.flush()
    table.add(1, {"score": 6.0})
    table.flush()
    table.add(1, {"more": 0.0})
    table.add(2, {"a": 3.0})
    table.flush()
    again = MetricsCsv(table.path)
    again.drop_from(2)
    again.add(1, {"score": 7.25})
    again.flush()
    again.add(2, {"a": 4.0})
    again.flush()
    assert rows(table.path) == [
        {"step": "0", "a": "1.0", "score": "5.0", "more": ""},
        {"step": "1", "a": "2.0", "score": "7.25", "more": "0.0"},
        {"step": "2", "a": "4.0", "score": "", "more": ""},
    ]
    assert again.last() == {"a": 4.0, "score": 7.25, "more": 0.0} and again.total("a") == 7.0


def test_a_new_column_that_a_full_disk_refused_is_added_later(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    table = MetricsCsv(tmp_path / "m.csv")
    table.add(0, {"a": 1.0})
    table.flush()
    table.add(0, {"score": 5.0})
    monkeypatch.setattr(metrics_csv, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        table.flush()
    monkeypatch.undo()
    assert rows(table.path) == [{"step": "0", "a": "1.0"}]
    table.flush()
    again = MetricsCsv(table.path)
    again.drop_from(1)
    assert again.last() == {"a": 1.0, "score": 5.0}


def test_a_table_that_is_opened_again_goes_on(tmp_path):
    for step in range(2):
        table = MetricsCsv(tmp_path / "m.csv")
        table.add(step, {"a": 1.0})
        table.flush()
    assert [row["step"] for row in rows(table.path)] == ["0", "1"]


def test_the_total_of_a_figure(tmp_path):
    csv = MetricsCsv(tmp_path / "metrics.csv")
    for step, seconds in enumerate([0.5, 0.25, 1.0]):
        csv.add(step, {"seconds": seconds} if step != 1 else {"loss": 1.0})
    assert (csv.total("seconds"), csv.total("nothing")) == (1.5, 0)
