import pytest
import torch

from analytic_scenes import Sphere
from diffusion3d.camera_sampling import Orbit
from diffusion3d.rendering.render import composite
from diffusion3d.viewer.pictures import frames, gaussians, thresholded
from shown_scenes import splats

CAMERAS = Orbit(32).turntable(2, 32)
GREEN = (0, 255, 0)


def test_gaussians_are_the_scenes():
    representation, raw = splats(sh_degree=1, scenes=2)
    scene = representation.scene(raw)
    centers, covariances, rgbs, opacities = gaussians(scene)
    assert torch.equal(torch.from_numpy(centers), scene.means[0])
    eigenvalues = torch.linalg.eigvalsh(torch.from_numpy(covariances))
    assert torch.allclose(eigenvalues, scene.scales[0].square().sort(-1).values, atol=1e-6)
    assert torch.allclose(torch.from_numpy(rgbs) / 255, scene.colors[0], atol=0.5 / 255 + 1e-6)
    assert torch.allclose(torch.from_numpy(opacities)[:, 0] / 255, scene.opacities[0], atol=0.5 / 255 + 1e-6)


def test_a_covariance_in_closed_form():
    representation, raw = splats(1)
    raw["scales"] = torch.tensor([[[3.0, 2.0, 1.0]]]).log()
    raw["quats"] = torch.tensor([[[2**-0.5, 0, 0, 2**-0.5]]])  # a quarter turn about z: x becomes y
    _, covariances, _, _ = gaussians(representation.scene(raw))
    assert torch.allclose(torch.from_numpy(covariances[0]), torch.diag(torch.tensor([4.0, 9.0, 1.0])), atol=1e-5)


def test_faint_splats_go_and_other_scenes_stay():
    representation, raw = splats()
    scene = representation.scene(raw)
    left = thresholded(scene, 0.8)
    assert torch.equal(left.opacities > 0, scene.opacities >= 0.8) and 0 < int((left.opacities > 0).sum()) < 40
    assert torch.equal(thresholded(scene, 0.0).opacities, scene.opacities)
    sphere = Sphere()
    assert thresholded(sphere, 0.8) is sphere


def test_colour_is_the_composited_render():
    scene = Sphere()
    expected = composite(scene.render(CAMERAS), torch.tensor([[0.0, 1.0, 0.0]]))[0]
    assert torch.equal(frames(scene, CAMERAS, "colour", GREEN), expected)


@pytest.mark.parametrize("normals", [True, False])
def test_depth_and_normals_of_a_sphere(normals):
    scene = Sphere((0.0, 0.0, 0.0), normals=normals)
    depth = frames(scene, CAMERAS, "depth", GREEN)
    assert depth.shape == (2, 3, 32, 32) and depth[:, :, 0, 0].max() == 0
    assert depth[0, 0, 16, 16] > depth[0, 0, 16, 8] > 0
    seen = frames(scene, CAMERAS, "normals", GREEN)
    assert torch.equal(seen[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]))
    assert torch.allclose(seen[0, :, 16, 16], torch.tensor([0.5, 0.5, 1.0]), atol=0.15)
