"""Look at the scene of a finished, stopped or running run in the browser: `python -m diffusion3d.view RUN_DIR`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from diffusion3d.checks import ALLOWED
from diffusion3d.errors import UserError, one_line, user_error

log = logging.getLogger("diffusion3d.view")

PUMP_SECONDS = 0.03


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0: closed by Ctrl-C, 2: bad input."""
    parser = argparse.ArgumentParser(prog="python -m diffusion3d.view", description=__doc__)
    parser.add_argument("run", type=Path, help="a run directory; its newest checkpoint is shown")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8080, help="0 is any that is free (default: %(default)s)")
    parser.add_argument("--trust", action="append", default=[], metavar="MODULE", help="as run.trust; may be repeated")
    parser.add_argument("--device", default="auto", choices=ALLOWED["device"], help="(default: %(default)s)")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("diffusion3d").setLevel(logging.INFO)
    try:
        view(given.run, given.host, given.port, given.trust, given.device)
    except KeyboardInterrupt:
        return 0
    except Exception as error:  # Hydra wraps what the run's own classes raise
        cause = user_error(error)
        if not isinstance(cause, UserError):
            raise
        print(f"error: {one_line(cause)}", file=sys.stderr)
        return cause.exit_code
    return 0


def view(run: Path, host: str = "127.0.0.1", port: int = 8080, trust: Sequence[str] = (), device: str = "auto") -> None:
    """Serve the page until KeyboardInterrupt.

    Args:
        run: directory of the run.
        host, port: where to listen; port 0 is any that is free.
        trust: modules whose classes the run's config may name besides this package's own.
        device: to render on.

    Raises:
        UserError: no such run or device, it holds no scene, viser is missing, or the address cannot be had.
    """
    from diffusion3d.precision import pick_device
    from diffusion3d.tasks.render import load_scene
    from diffusion3d.viewer.viewer import Viewer

    representation, raw, camera = load_scene(str(run), list(trust), pick_device(device))
    with Viewer(representation, lambda: raw, camera, host, port, run / "videos") as viewer:
        log.info("%s is shown at %s; Ctrl-C closes it", run, viewer.url)
        while True:
            viewer.pump(PUMP_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
