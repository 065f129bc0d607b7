"""Counts of the crossing test, at the end of a session that ran any of it."""

from collections import Counter


def pytest_terminal_summary(terminalreporter):
    count = Counter(
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "crossing" and report.when == "call"
    )
    if count:
        total = sum(count.values())
        terminalreporter.write_line(
            f"crossing: {count['runs']} ran, {count['refused']} were refused, {total} entries in all"
        )
