"""Render toybox scenes into a disk cache."""

from __future__ import annotations

import argparse
import signal
import sys

from diffusion3d.data.toybox.cache import CacheSpec, write
from diffusion3d.data.toybox.generate import SPLITS
from diffusion3d.errors import Interrupted, UserError


def main() -> int:
    default = CacheSpec()
    parser = argparse.ArgumentParser(prog="python -m diffusion3d.data.toybox", description=__doc__)
    parser.add_argument("--out", required=True, help="the cache's folder; an existing cache is resumed or grown")
    parser.add_argument("--count", type=int, required=True, help="scenes that the cache holds in the end")
    parser.add_argument("--split", choices=SPLITS, default=default.split)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--size", type=int, default=default.size, help="pixels (default: %(default)s)")
    parser.add_argument("--views", type=int, default=default.views, help="per scene (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    args = parser.parse_args()
    for name, least in (("seed", 0), ("count", 1), ("size", 2), ("views", 1), ("workers", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name} {getattr(args, name)} must be at least {least}")

    def stop(signum: int, frame: object) -> None:
        raise Interrupted("stopped; the same command continues", signum)

    before = [(s, signal.signal(s, stop)) for s in (signal.SIGINT, signal.SIGTERM)]
    try:
        spec = CacheSpec(split=args.split, seed=args.seed, size=args.size, views=args.views)
        write(args.out, spec, args.count, args.workers)
    except (UserError, Interrupted) as error:
        print(f"toybox: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(
            f"toybox: cannot write {error.filename or args.out}: {error.strerror}; give another --out", file=sys.stderr
        )
        return UserError.exit_code
    finally:
        for signum, handler in before:
            signal.signal(signum, handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
