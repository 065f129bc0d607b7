"""What every choice of data must do, and which tasks take it."""

import subprocess
import sys

import pytest
import torch
import trimesh
from omegaconf import OmegaConf

from captures import blender, colmap_scene, srn_instance
from choices import choices, composed
from diffusion3d.config import CONF_DIR
from diffusion3d.data.base import PosedData, Splits
from diffusion3d.data.toybox.cache import CacheSpec, write
from diffusion3d.errors import UserError
from diffusion3d.tasks.build import build
from dots import everything
from posed_scenes import write_scenes

FIT = {"colmap", "meshes", "srn", "toybox_scenes", "transforms"}
TRAIN = {"posed_folder", "toybox"}
LATENT = ["autoencoder", "latent_denoising", "text_distillation"]


def provided(choice):
    return OmegaConf.load(CONF_DIR / "data" / f"{choice}.yaml").provides


def arguments(choice, folder):
    """What makes a choice small, and its files."""
    if choice == "toybox_scenes":
        return ["data.scenes=2", "data.train_views=3", "data.test_views=2", "data.size=24"]
    if choice == "meshes":
        trimesh.creation.box().export(folder / "box.ply")
        return [f"data.root={folder}", "data.train_views=3", "data.test_views=2", "data.size=24"]
    if choice == "toybox":
        for split in ("train", "validation"):
            write(folder / split, CacheSpec(size=24, views=2), 2, workers=1, progress=False)
        return [f"data.{split}.root={folder / split}" for split in ("train", "validation")]
    if choice == "colmap":
        colmap_scene(folder)
    elif choice == "srn":
        srn_instance(folder / "cars_train" / "one")
    elif choice == "transforms":
        blender(folder)
    elif choice == "posed_folder":
        write_scenes(folder)
        return [f"data.root={folder}", "data.views=4"]
    return [f"data.root={folder}"]


@pytest.mark.parametrize("choice", choices("data"))
def test_a_choice_says_what_parts_it_has(choice, tmp_path):
    splits = build(composed(f"data={choice}", *arguments(choice, tmp_path)).data)
    assert isinstance(splits, Splits) and len(splits.train) > 0
    assert (splits.validation is not None) == ("validation_scenes" in provided(choice))
    assert (splits.test is not None) == ("test_views" in provided(choice))


@pytest.mark.parametrize("choice", sorted(FIT | TRAIN))
@pytest.mark.parametrize(("task", "need", "able"), [("fit", "test_views", FIT), ("train", "validation_scenes", TRAIN)])
def test_a_task_takes_the_data_that_can_serve_it(task, need, able, choice):
    typed = [f"task={task}", f"data={choice}", *([] if choice.startswith("toybox") else ["data.root=a_folder"])]
    if choice in able:
        composed(*typed)
        return
    with pytest.raises(UserError, match=f"needs '{need}'.*these provide it: data=") as caught:
        composed(*typed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("objective", LATENT)
def test_every_objective_needs_scenes_held_apart(objective):
    typed = ["task=train", f"objective={objective}", "prior=stable_diffusion"]
    composed(*typed, "data=toybox")
    with pytest.raises(UserError, match="task=train needs 'validation_scenes'.*data=toybox$"):
        composed(*typed, "data=meshes", "data.root=a_folder")


def test_the_refusal_is_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "diffusion3d.run", "task=train", "data=transforms", "data.root=a_folder"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: task=train needs 'validation_scenes'")
    assert done.stderr.endswith("these provide it: data=posed_folder, data=toybox\n") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("choice", [name for name in choices("data") if "test_views" in provided(name)])
def test_the_same_scenes_are_seen_from_other_views(choice, tmp_path):
    config = composed("task=fit", "representation=gsplat", f"data={choice}", *arguments(choice, tmp_path))
    splits = build(config.data)
    train, test = splits.train, splits.test
    assert isinstance(train, PosedData) and isinstance(test, PosedData) and len(train) == len(test) > 0
    seen, held = everything(train), everything(test)
    assert (seen.cameras.height, seen.cameras.width) == (held.cameras.height, held.cameras.width)
    for batch, data in ((seen, train), (held, test)):
        assert batch.images.shape[:2] == (len(data), data.views) and batch.images.shape[2] == 3
        assert batch.images.min() >= 0 and batch.images.max() <= 1 and len(batch.captions) == len(data)
        if batch.alpha is not None:
            assert (batch.images <= batch.alpha + 1e-6).all()
        rotation = batch.cameras.c2w[..., :3, :3]
        torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-4, rtol=0)
        assert 0 < batch.cameras.near < batch.cameras.far
    for scene in range(len(train)):
        difference = seen.cameras.c2w[scene][:, None] - held.cameras.c2w[scene][None]
        assert difference.abs().amax((2, 3)).min() > 1e-3
