"""A background of the scene's own."""

import json

import numpy as np
import torch
from PIL import Image

import diffusion3d
from captures import matrices
from choices import CAMERA, FIELDS, cameras, chosen, small
from diffusion3d.rendering.render import composite
from diffusion3d.representations.base import SceneParameters
from diffusion3d.tasks.build import build
from diffusion3d.tasks.checkpoint import load_checkpoint

LEARNED = "representation.background={_target_: diffusion3d.representations.background.LearnedBackground}"


def test_it_is_seen_where_nothing_is_in_the_way_and_learns_what_is_there():
    representation = build(
        chosen("representation", "voxels", LEARNED, "representation.density.bias=-9", "representation.density.blob=0")
    )
    owner = SceneParameters(representation, representation.init(1, torch.Generator().manual_seed(0)))
    views = cameras(1, 3)
    height = torch.nn.functional.normalize(views.rays()[1], dim=-1)[..., 2]
    sky = torch.stack([height, -height, 0.3 + 0 * height], 2) / 2 + 0.5
    optimizer = torch.optim.Adam(owner.parameters(), lr=1e-2)
    for _ in range(200):
        render = owner.scene().render(views)
        loss = (composite(render, torch.zeros(1, 3)) - sky).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3
    render = owner.scene().render(views)
    torch.testing.assert_close(composite(render, torch.zeros(1, 3)), composite(render, torch.ones(1, 3)))


def test_it_is_a_function_of_the_direction_alone():
    representation = build(chosen("representation", "voxels", LEARNED))
    raw = representation.init(1, torch.Generator().manual_seed(0))
    assert {name for name in raw if name.startswith("background_")} == set(representation.background.names)
    views = cameras(1, 2)
    pixels = torch.tensor([[[5, 77], [5, 400]]])
    whole, some = (representation.scene(raw).render(views, chosen).behind for chosen in (None, pixels))
    torch.testing.assert_close(whole.flatten(3).gather(3, pixels[:, :, None].expand(-1, -1, 3, -1)), some)
    directions = views.rays()[1].flatten(2, 3)[:, 1, 400][:, None]
    torch.testing.assert_close(representation.background(raw, 3 * directions)[0, 0], some[0, 1, :, 1])


def write_sky(root, size=16):
    """Opaque views of nothing but a sky, red where it is high and blue where it is low, in Blender's layout."""
    for part, views in (("train", 10), ("test", 3)):
        frames = []
        for view, matrix in enumerate(matrices(views)):
            rows, columns = 1 - 2 * (np.mgrid[:size, :size] + 0.5) / size
            local = np.stack([-columns, rows, np.full_like(rows, -2.0)], -1)
            high = (local @ matrix[:3, :3].T)[..., 2] / np.linalg.norm(local, axis=-1)
            picture = np.stack([0.5 + high / 2, np.full_like(high, 0.3), 0.5 - high / 2], -1)
            path = root / part / f"{view}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * picture).round().astype(np.uint8)).save(path)
            frames.append({"file_path": f"./{part}/{view}", "transform_matrix": matrix.tolist()})
        content = {"camera_angle_x": 2 * np.arctan(0.5), "frames": frames}
        (root / f"transforms_{part}.json").write_text(json.dumps(content))


def run(directory, *typed):
    always = ["logger=none", "device=cpu", "precision=fp32", "representation=voxels", *FIELDS["voxels"], *CAMERA]
    metrics = diffusion3d.run([*always, "task.video_size=16", f"hydra.run.dir={directory}", *typed])
    return metrics, load_checkpoint(directory / "checkpoints")[1]["task"]["raw"]


def test_a_fit_to_opaque_images_learns_it(tmp_path):
    write_sky(tmp_path)
    typed = ["task=fit", "data=transforms", f"data.root={tmp_path}", "task.steps=60", "task.pixels=50"]
    typed += ["task.views=4", "representation.renderer.samples=4"]
    typed += [
        "representation.density.bias=-9",
        "representation.density.blob=0",
        "representation.learning_rates.encoding=0",
    ]
    metrics, _ = run(tmp_path / "run", *typed, LEARNED, "representation.learning_rates.background=1e-2")
    assert metrics["test/psnr"] > max(25, metrics["test/psnr_mean_image"] + 3)


def test_distillation_learns_it_where_the_prior_is_told_no_colour(tmp_path):
    typed = ["task=distill", "prompt=a castle", "prior=stable_diffusion", *small("prior", "stable_diffusion"), LEARNED]
    before, after = (run(tmp_path / f"{steps}", *typed, f"task.steps={steps}")[1] for steps in (1, 3))
    for name in (name for name in before if name.startswith("background_")):
        assert (after[name] != before[name]).any(), name
