"""Unlabelled 64-pixel pictures of all subjects, in random order, for somebody to name.

python experiments/toybox/naming_test.py --seed 11 --out naming.png --key naming.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from diffusion3d.cameras import orbit
from diffusion3d.data.raycast import render_rgba
from diffusion3d.data.toybox.generate import draw
from diffusion3d.data.toybox.subjects import SUBJECTS

SIZE, ACROSS, ENLARGED = 64, 8, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    order = [SUBJECTS[i].name for i in rng.permutation(len(SUBJECTS))]
    cell, margin = SIZE * ENLARGED, 14
    rows = -(-len(order) // ACROSS)
    sheet = Image.new("RGB", (ACROSS * cell, rows * (cell + margin)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, name in enumerate(order):
        azimuth, elevation = rng.uniform(-70, 70), rng.uniform(5, 35)
        cameras = orbit(torch.tensor([[azimuth]]), torch.tensor([[elevation]]), 3.0, 40.0, SIZE, SIZE)
        mesh = draw(args.seed, place, "test", name).mesh
        rgba = render_rgba(mesh, cameras.c2w[0].numpy(), cameras.K[0].numpy(), SIZE, SIZE, 2)[0].astype(np.float32)
        picture = rgba[..., :3] + (255 - rgba[..., 3:]) * 0.9
        enlarged = Image.fromarray(picture.clip(0, 255).astype(np.uint8)).resize((cell, cell), Image.Resampling.NEAREST)
        x, y = place % ACROSS * cell, place // ACROSS * (cell + margin)
        sheet.paste(enlarged, (x, y + margin))
        pen.text((x + 4, y + 1), str(place + 1), fill="black")
    sheet.save(args.out)
    args.key.write_text(json.dumps(order, indent=1) + "\n")


if __name__ == "__main__":
    main()
