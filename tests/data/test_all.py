"""What every choice of data that scenes are fitted to must do."""

import pytest
import torch
import trimesh
from omegaconf import OmegaConf

from captures import blender, colmap_scene, srn_instance
from choices import choices, composed
from diffusion3d.config import CONF_DIR
from diffusion3d.data.base import PosedData, Splits
from diffusion3d.tasks.build import build
from dots import everything


def fit_choices():
    return [
        name for name in choices("data") if "test_views" in OmegaConf.load(CONF_DIR / "data" / f"{name}.yaml").provides
    ]


def arguments(choice, folder):
    """What makes a choice small, and its files."""
    if choice == "toybox_scenes":
        return ["data.scenes=2", "data.train_views=3", "data.test_views=2", "data.size=24"]
    if choice == "meshes":
        trimesh.creation.box().export(folder / "box.ply")
        return [f"data.root={folder}", "data.train_views=3", "data.test_views=2", "data.size=24"]
    if choice == "colmap":
        colmap_scene(folder)
    elif choice == "srn":
        srn_instance(folder / "cars_train" / "one")
    elif choice == "transforms":
        blender(folder)
    return [f"data.root={folder}"]


@pytest.mark.parametrize("choice", fit_choices())
def test_the_same_scenes_are_seen_from_other_views(choice, tmp_path):
    config = composed("task=fit", "representation=gsplat", f"data={choice}", *arguments(choice, tmp_path))
    splits = build(config.data)
    assert isinstance(splits, Splits) and splits.validation is None
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
