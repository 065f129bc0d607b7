"""How fast the comparison page of many runs is, and how large.

    python experiments/reliability/comparison_page.py RUN [RUN ...] [--runs 200] [--repeats 5]

Makes copies of the given run directories with other prompts, scales, seeds and metrics, writes their page, opens it from disk
in headless Chromium at 1280 × 800 and prints, as JSON:

- write_seconds: of `python -m diffusion3d.compare`, files copied.
- html_and_js_bytes: index.html and the curves; scene_bytes and video_bytes are loaded run by run, as they are looked at.
- first_paint_ms, first_video_ms: from the start of the navigation to the first contentful paint and to the first video that can
  show a frame; the median and the worst of the repeats, each in a new browser.
- worst_frame_ms: the longest time between two frames while the page is scrolled from top to bottom and sorted, and
  longest_task_ms of the main thread meanwhile.

Figures of 200 runs or more go to comparison_page.json.

Targets: first paint below 2 s with 200 runs, HTML and JS at most 1 MB.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from circumstances import circumstances

FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
PROMPTS = (
    "castle on a hill",
    "a standing corgi dog",
    "race car",
    "a red mushroom",
    "house",
    "airplane",
    "boat",
    "robot",
)
SCALES = (5.0, 7.5, 10.0, 20.0, 50.0)
LEFT_OUT = ("checkpoints", "previews", "*.gif", "wandb", ".lock")
USE = """async () => {
    const frames = [], tasks = [];
    new PerformanceObserver((list) => tasks.push(...list.getEntries().map((e) => e.duration))).observe({ type: 'longtask' });
    let going = true, last = performance.now();
    const frame = (now) => { frames.push(now - last); last = now; if (going) requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
    const height = document.scrollingElement.scrollHeight;
    for (let y = 0; y < height; y += 200) { scrollTo(0, y); await new Promise((resolve) => setTimeout(resolve, 60)); }
    for (const field of ['metric loss', 'prompt', 'seed']) {
        document.getElementById('sort').value = field;
        document.getElementById('sort').dispatchEvent(new Event('change'));
        await new Promise((resolve) => setTimeout(resolve, 500));
    }
    going = false;
    return { worst_frame_ms: Math.max(...frames), longest_task_ms: Math.max(0, ...tasks) };
}"""


def copy_run(source: Path, target: Path, number: int) -> None:
    """A copy that differs in prompt, scale, seed and all metrics."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    prompt, scale = PROMPTS[number % len(PROMPTS)], SCALES[number // len(PROMPTS) % len(SCALES)]
    seed = number // (len(PROMPTS) * len(SCALES))
    config = yaml.safe_load((target / "config.yaml").read_text())
    config["prompt"], config["seed"], config["guidance"]["scale"] = prompt, seed, scale
    (target / "config.yaml").write_text(yaml.safe_dump(config))
    (target / "overrides.yaml").write_text(
        yaml.safe_dump([f"prompt={prompt}", f"guidance.scale={scale}", f"seed={seed}"])
    )
    factor = 1 + 0.01 * number
    metrics = json.loads((target / "metrics.json").read_text())
    (target / "metrics.json").write_text(json.dumps({name: value * factor for name, value in metrics.items()}))
    with (target / "metrics.csv").open(newline="") as file:
        columns, *rows = csv.reader(file)
    with (target / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([step, *(value and float(value) * factor for value in values)] for step, *values in rows)
    for film in (target / "videos").glob("*.mp4"):
        with film.open("ab") as file:  # as another run's, so that no two share a file
            file.write(b"\x00\x00\x00\x0cfree" + number.to_bytes(4, "big"))


def look(index: Path) -> dict[str, float]:
    """One look at the page by a new browser."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(index.as_uri())
        seen = "[...document.querySelectorAll('video')].some((video) => video.readyState >= 2)"
        while not page.evaluate(seen):
            page.wait_for_timeout(10)
        found: dict[str, float] = {"first_video_ms": page.evaluate("performance.now()")}
        painted = page.wait_for_function("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
        found["first_paint_ms"] = painted.json_value()
        page.select_option("#rows", "", force=True)
        page.select_option("#columns", "", force=True)
        found |= page.evaluate(USE)
        browser.close()
    return found


def size(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", metavar="RUN", help="finished runs, with videos and scene.ply")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()

    from diffusion3d.compare import compare

    with tempfile.TemporaryDirectory() as folder:
        runs, out = Path(folder) / "runs", Path(folder) / "compare"
        for number in range(given.runs):
            copy_run(given.sources[number % len(given.sources)], runs / f"run_{number:03d}", number)
        begin = time.monotonic()
        compare([runs], out)
        result: dict[str, Any] = {"runs": given.runs, "write_seconds": round(time.monotonic() - begin, 1)}
        media = out / "media"
        curves = [*media.glob("curve-*.js")]
        result["html_bytes"] = size([out / "index.html"])
        result["html_and_js_bytes"] = size([out / "index.html", *curves])
        result["scene_bytes"] = size([path for path in media.glob("*.js") if path not in curves])
        result["video_bytes"] = size([*media.glob("*.mp4")])
        looks = [look(out / "index.html") for _ in range(given.repeats)]
    for name in looks[0]:
        values = [one[name] for one in looks]
        result[name] = {"median": round(statistics.median(values)), "worst": round(max(values))}
    result = {**circumstances(threads=None), **result, "repeats": given.repeats}
    print(json.dumps(result, indent=2))
    if given.runs >= 200:
        (Path(__file__).parent / "comparison_page.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
