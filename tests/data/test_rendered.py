import numpy as np
import pytest
import torch

from diffusion3d.data.raycast import render
from diffusion3d.data.rendered import Rig, rendered
from diffusion3d.data.toybox.generate import draw
from diffusion3d.errors import UserError
from dots import everything


@pytest.mark.parametrize("layout", ["fibonacci", "random"])
def test_test_views_differ_from_training_views_and_all_look_at_the_object(layout):
    rig = Rig(train_views=30, test_views=30, layout=layout)
    train, test = rig.cameras(False), rig.cameras(True)
    assert torch.cdist(train.origins[0], test.origins[0]).min() > 1e-3
    for cameras in (train, test):
        assert (cameras.elevation > -30.01).all() and (cameras.elevation < 75.01).all()
        places, depth = cameras.project(torch.zeros(1, 1, 3))
        torch.testing.assert_close(places, torch.full_like(places, 64.0), atol=1e-3, rtol=0)
        torch.testing.assert_close(depth, torch.full_like(depth, 3.0))
    assert not torch.equal(Rig(seed=1).cameras(False).c2w, Rig(seed=0).cameras(False).c2w)


def test_fibonacci_views_are_spread_evenly():
    origins = Rig(train_views=100, layout="fibonacci").cameras(False).origins[0] / 3
    nearest = (torch.cdist(origins, origins) + 10 * torch.eye(100)).min(1).values
    area = 2 * np.pi * (np.sin(np.deg2rad(75)) - np.sin(np.deg2rad(-30)))
    assert nearest.min() > 0.6 * np.sqrt(area / 100)


def test_scenes_are_what_the_ray_caster_draws():
    meshes = [draw(0, number).mesh for number in range(2)]
    rig = Rig(train_views=3, test_views=2, size=32, samples=2)
    splits = rendered(iter(meshes), [["one"], ["two"]], rig)
    for data, test in ((splits.train, False), (splits.test, True)):
        batch = everything(data)
        assert batch.captions == ("one", "two") and (len(data), data.views) == (2, 2 if test else 3)
        for scene, mesh in enumerate(meshes):
            drawn = render(mesh, rig.cameras(test), samples=2)
            for name in ("images", "alpha", "depth", "normals"):
                tolerance = 0.51 / 255 if name in ("images", "alpha") else 0
                torch.testing.assert_close(getattr(batch, name)[scene], getattr(drawn, name)[0], atol=tolerance, rtol=0)
            torch.testing.assert_close(batch.cameras.c2w[scene], rig.cameras(test).c2w[0])
    assert everything(rendered(meshes[:1], [["one"]], Rig(1, 1, 8, geometry=False)).train).depth is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, r"data.size=0 must be at least 1"),
        ({"test_views": 0}, r"data.test_views=0"),
        ({"layout": "spiral"}, r"data.layout=spiral is not one of fibonacci, random"),
        ({"elevation": [-90, 0]}, r"data.elevation=\[-90, 0\]"),
        ({"elevation": [1, 2, 3]}, r"data.elevation=\[1, 2, 3\]"),
        ({"seed": -1}, r"data.seed=-1 must be at least 0"),
        ({"fov": 20.0}, r"data.distance=3.0 and data.fov=20.0 do not show the whole object"),
    ],
)
def test_rigs_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        Rig(**wrong)
