"""Compare runs on one page that opens from disk: `python -m diffusion3d.compare DIR...`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from diffusion3d.errors import UserError, one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0: written, 2: bad input."""
    parser = argparse.ArgumentParser(prog="python -m diffusion3d.compare", description=__doc__)
    parser.add_argument("dirs", type=Path, nargs="+", metavar="DIR", help="a run, or a folder of runs at any depth")
    parser.add_argument(
        "--out", type=Path, default=Path("compare"), help="folder for index.html and media/ (default: %(default)s)"
    )
    parser.add_argument("--single-file", action="store_true", help="put the media into index.html, for up to 20 runs")
    given = parser.parse_args(arguments)
    try:
        print(compare(given.dirs, given.out, given.single_file))
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    return 0


def compare(folders: Sequence[Path], out: Path = Path("compare"), single_file: bool = False) -> str:
    """Write the page (see `comparison.page.write_page`) of all runs in some folders.

    Returns:
        A line that says where it is and what it holds.

    Raises:
        UserError: no such folder, no run in it, or what `write_page` refuses.
    """
    from diffusion3d.comparison.page import write_page
    from diffusion3d.comparison.runs import find_runs, read_runs

    runs = read_runs(find_runs(folders))
    index = write_page(runs, out, single_file)
    counts = Counter(run.status for run in runs)
    return f"{index}: {len(runs)} runs ({', '.join(f'{count} {status}' for status, count in counts.items())})"


if __name__ == "__main__":
    sys.exit(main())
