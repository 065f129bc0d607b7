"""Edit distilled scenes: DDS and PDS beside SDS that goes on from the same scene, and the scene left alone.

    python experiments/guidance/edit.py [--state outputs/guidance]
    python experiments/guidance/edit.py --table

Every edit changes the colour or the subject that the prompt names, to one that the prior has seen. The schemes denoise the same
number of views (BUDGET of `compare.py`) with the settings they ship with, seed 0. Judged on 24 turntable views by recogniser A:
the share of views that are called the new subject, whether the new colour is read off all views together, the silhouette's IoU
with the source's (1 keeps the shape), and the PSNR against the source's views (how much changed at all). results/edit.json
keeps the figures, --table writes EDITS.md.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare import HERE, judge, made, once, steps, turned

RESULTS = HERE / "results" / "edit.json"
SCHEMES = ("none", "sds", "dds", "pds")


@dataclass(frozen=True)
class Edit:
    """What the scene shows, what it is to become, and the subject and colour that the judge looks for."""

    source: str
    target: str
    subject: str
    colour: str


EDITS = (
    Edit("a red mushroom", "a blue mushroom", "mushroom", "blue"),
    Edit("a yellow house", "a pink house", "house", "pink"),
    Edit("a brown chair", "a red chair", "chair", "red"),
    Edit("a blue robot", "an orange robot", "robot", "orange"),
    Edit("a brown horse", "a brown elephant", "elephant", "brown"),
    Edit("a green tree", "an orange tree", "tree", "orange"),
)


def measure(state: Path) -> None:
    from diffusion3d.tasks.facts import versions, write_json

    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    for edit in EDITS:
        source = state / "edits" / edit.source.replace(" ", "-")
        if not (source / "run" / "metrics.json").exists():
            once(source, [f"prompt={edit.source}"])
        for scheme in SCHEMES:
            key = f"{scheme} | {edit.source} | {edit.target}"
            if key in results["runs"]:
                continue
            folder, facts, here = source, {}, versions()
            if scheme != "none":
                folder = state / "edits" / key.replace(" | ", "_").replace(" ", "-")
                from_source = [f"run={source / 'run'}"]
                if scheme != "sds":
                    from_source.append(f"guidance.source_prompt='{edit.source}'")
                count = steps(scheme, state, here["git"], from_source)
                overrides = [f"guidance={scheme}", f"task.steps={count}", *from_source, f"prompt={edit.target}"]
                facts = once(folder, overrides)
            results["versions"] = here
            results["runs"][key] = {**facts, "git": here["git"], **judged(folder / "run", source / "run", edit)}
            RESULTS.parent.mkdir(exist_ok=True)
            write_json(RESULTS, results)
            print(key, results["runs"][key], flush=True)


def judged(folder: Path, source: Path, edit: Edit) -> dict[str, float]:
    from networks import COLOUR_NAMES, NAMES

    pictures, alpha = turned(folder)
    before, alpha_before = turned(source)
    reading = judge().read(pictures)
    colour = int(reading.colour[:, 0].log_softmax(-1).mean(0).argmax())
    here, there = alpha > 0.5, alpha_before > 0.5
    error = float((pictures - before).square().mean())
    return {
        "subject": float((reading.subject.argmax(1) == NAMES.index(edit.subject)).float().mean()),
        "colour": float(COLOUR_NAMES[colour] == edit.colour),
        "iou": float((here & there).sum() / (here | there).sum().clamp(min=1)),
        "psnr_source": -10 * math.log10(max(error, 1e-10)),
    }


def write_table() -> None:
    content = json.loads(RESULTS.read_text())
    runs = content["runs"]
    lines = [
        f"Written by `edit.py --table`; {made(content)}.",
        "",
        "| edit | scheme | new subject | new colour | IoU with the source | PSNR against it | steps | seconds |",
        "|" + "---|" * 8,
    ]
    for key, run in sorted(runs.items(), key=lambda item: item[0].split(" | ")[1:]):
        scheme, source, target = key.split(" | ")
        cost = f"{run['steps']:.0f} | {run['seconds']:.0f}" if "steps" in run else " | "
        lines.append(
            f"| {source} → {target} | {scheme} | {run['subject']:.0%} | {'yes' if run['colour'] else 'no'} | "
            f"{run['iou']:.2f} | {run['psnr_source']:.1f} | {cost} |"
        )
    (HERE / "EDITS.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path("outputs/guidance"), help="where the runs are kept")
    parser.add_argument("--table", action="store_true", help="write EDITS.md from what there is")
    given = parser.parse_args()
    if given.table:
        write_table()
    else:
        measure(given.state)
