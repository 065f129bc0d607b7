import pytest
import torch

from diffusion3d.data.raycast import render
from diffusion3d.data.rendered import Rig
from diffusion3d.data.toybox.generate import draw
from diffusion3d.data.toybox_scenes import toybox_scenes
from diffusion3d.errors import UserError
from dots import everything

RIG = {"train_views": 2, "test_views": 1, "size": 24, "samples": 2}


def test_numbered_objects_of_a_split_are_drawn():
    batch = everything(toybox_scenes(scenes=2, split="validation", first=5, object_seed=3, **RIG).train)
    for scene in range(2):
        drawn = render(draw(3, 5 + scene, "validation").mesh, Rig(**RIG).cameras(False), samples=2)
        torch.testing.assert_close(batch.depth[scene], drawn.depth[0])


def test_a_subject_can_be_chosen():
    splits = toybox_scenes(scenes=3, subject="castle", **RIG)
    assert all("castle" in caption for caption in splits.train.vocabulary) and len(splits.test) == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subject": "cathedral"}, r"no subject 'cathedral'"),
        ({"split": "exam"}, r"split='exam' is not one of"),
        ({"scenes": 0}, r"scenes=0 must be at least 1"),
        ({"first": -1}, r"first=-1"),
    ],
)
def test_unknown_objects_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        toybox_scenes(**{**RIG, **wrong})
