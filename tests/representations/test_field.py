"""Encodings and densities against values worked out otherwise."""

import math

import pytest
import torch
import torch.nn.functional as F

from choices import cameras, choices, chosen
from diffusion3d.errors import UserError
from diffusion3d.representations.base import SceneParameters
from diffusion3d.representations.encodings import FactorisedVoxels, Frequency, HashGrid, Triplane, Voxels
from diffusion3d.representations.field import Density, VolumeRepresentation
from diffusion3d.representations.occupancy import DECAY, Occupancy
from diffusion3d.tasks.build import build
from diffusion3d.views import PosedViews

FIELDS = [name for name in choices("representation") if name not in ("gsplat", "ib_planes", "image")]


def points(count=50, scenes=1):
    return 2 * torch.rand(scenes, count, 3, generator=torch.Generator().manual_seed(0)) - 1


def test_voxels_at_cell_centres_are_the_cells():
    encoding = Voxels(size=5, channels=2)
    raw = encoding.init(1, torch.Generator().manual_seed(0))
    i, j, k = 1, 4, 2
    centre = torch.tensor([[[i, j, k]]]) * 0.4 - 0.8
    torch.testing.assert_close(encoding(raw, centre)[0, 0], raw["grid"][0, :, k, j, i])


def test_a_triplane_sums_its_planes():
    encoding = Triplane(size=4, features=3)
    raw = encoding.init(1, torch.Generator().manual_seed(0))
    i, j, k = 0, 3, 1
    centre = torch.tensor([[[i, j, k]]]) * 0.5 - 0.75
    planes = raw["planes"][0]
    expected = planes[0, :, j, i] + planes[1, :, k, i] + planes[2, :, k, j]
    torch.testing.assert_close(encoding(raw, centre)[0, 0], torch.cat([expected, centre[0, 0]]))


def test_factors_multiply_planes_and_the_lines_across_them():
    encoding = FactorisedVoxels(size=4, components=2, channels=6)
    raw = encoding.init(1, torch.Generator().manual_seed(0)) | {"basis": torch.eye(6)[None]}
    i, j, k = 2, 0, 3
    centre = torch.tensor([[[i, j, k]]]) * 0.5 - 0.75
    planes, lines = raw["planes"][0], raw["lines"][0, :, :, :, 0]
    expected = [
        planes[0, :, j, i] * lines[0, :, k],
        planes[1, :, k, i] * lines[1, :, j],
        planes[2, :, k, j] * lines[2, :, i],
    ]
    torch.testing.assert_close(encoding(raw, centre)[0, 0], torch.cat(expected))


def test_frequencies_double():
    x = torch.tensor([[[0.5, -0.25, 0.125]]])
    found = Frequency(2)({}, x)[0, 0]
    phase = torch.pi * torch.tensor([0.5, 1.0, -0.25, -0.5, 0.125, 0.25])
    torch.testing.assert_close(found, torch.cat([x[0, 0], phase.sin(), phase.cos()]))


def test_a_hash_grid_refuses_odd_sizes():
    with pytest.raises(UserError, match="coarsest=64 at most finest=32"):
        HashGrid(coarsest=64, finest=32)


def test_densities_are_their_formulas():
    x, raw = points(), torch.linspace(-20, 20, 50)[None]
    blob = 5 * torch.exp(-x.square().sum(-1) / (2 * 0.2**2))
    torch.testing.assert_close(Density("softplus", -1.0, 5.0, 0.2, 3.0)(raw, x), 3 * F.softplus(raw - 1 + blob))
    low = raw.clamp(max=14)
    torch.testing.assert_close(Density("exp")(low, x), low.exp())
    extreme = torch.tensor([[100.0, -100.0]], requires_grad=True)
    value = Density("exp")(extreme, x[:, :2])
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(extreme.grad).all() and (extreme.grad > 0).all()
    with pytest.raises(UserError, match="activation=relu must be exp or softplus"):
        Density("relu")


def test_occupancy_finds_where_a_field_is():
    occupancy = Occupancy(size=16, every=4)
    assert occupancy.cells is None
    torch.manual_seed(0)
    for step in range(0, 9):
        occupancy.update(step, torch.device("cpu"), lambda x: 50.0 * (x.norm(dim=-1) < 0.5))
    side = (torch.arange(16) + 0.5) / 8 - 1
    distance = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), -1).norm(dim=-1)
    reach = 3**0.5 * (1 / 16 + 1 / 8)  # half a cell, and the one around
    assert occupancy.cells[distance < 0.5 - reach].all() and not occupancy.cells[distance > 0.5 + reach].any()
    other = Occupancy(size=16)
    other.load_state(occupancy.state())
    assert torch.equal(other.cells, occupancy.cells)
    other.load_state(Occupancy(size=16).state())
    fog = Occupancy(size=16)
    fog.update(0, torch.device("cpu"), lambda x: torch.full_like(x[:, 0], 1e-6))
    assert fog.cells.all(), "where there is nothing yet, anything may come"


def test_occupancy_forgets_the_fog_that_a_scene_starts_with():
    """Opacity o decays to the threshold t in log(t / o) / log(DECAY) looks."""
    occupancy = Occupancy(size=16, every=1, warmup=100, threshold=0.005)
    fog = -math.log(1 - 0.15) / occupancy.length

    def wall(x):
        return 40.0 * (x[:, 0] > 0.75)

    occupancy.update(0, torch.device("cpu"), lambda x: wall(x) + fog)
    looks = math.ceil(math.log(0.005 / 0.15) / math.log(DECAY))
    for step in range(1, looks + 1):
        assert occupancy.cells.all()
        occupancy.update(step, torch.device("cpu"), wall)
    assert occupancy.cells[-3:].all() and not occupancy.cells[:-3].any()


@pytest.mark.parametrize(
    ("name", "size", "share"),
    [("nerf", "head.width=64", 1), ("nerf_frequency", "head.width=128", 4), ("ib_planes", "sources=8", 8)],
)
def test_a_field_that_takes_more_memory_is_given_fewer_samples_at_a_time(name, size, share):
    changed = [f"representation.{size}", "representation.renderer.chunk=9600"]
    representation: VolumeRepresentation = build(chosen("representation", name, *changed))
    field, given = representation.field, []

    def counting(raw, x, sources=None):
        given.append(x.shape[1])
        return field(raw, x, sources)

    representation.field = counting
    with torch.no_grad():
        representation.scene(representation.init(1)).render(cameras(1, 1))
    assert 0.8 * 9600 / share < max(given) <= 9600 / share


@pytest.mark.parametrize("fitted", [True, False])
def test_a_fit_looks_everywhere_during_the_warmup_and_a_distillation_grows_from_its_ball(fitted):
    """Voxels learn apart from one another: what lies across a gap is found where all of space is looked at."""
    small = ["encoding.size=48", "renderer.samples=32", "occupancy.warmup=48", "density.bias=-4.0"]
    changed = [f"representation.{key}" for key in small]
    representation: VolumeRepresentation = build(chosen("representation", "voxels", *changed))
    views = cameras(1, 6)
    parts = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.85, 0.0]])

    def solid(x, sources=None):
        inside = (torch.cdist(x, parts[None]) < 0.15).any(-1)
        return 60.0 * inside, torch.full_like(x, 0.3)

    with torch.no_grad():
        truth = representation.volume(solid, views)
    seen = PosedViews(views, truth.rgb, truth.alpha) if fitted else None
    owner = SceneParameters(representation, representation.init(1, torch.Generator().manual_seed(0), seen))
    optimizer = torch.optim.Adam(owner.param_groups())
    torch.manual_seed(0)
    for step in range(64):
        render = owner.scene().render(views)
        optimizer.zero_grad()
        ((render.rgb - truth.rgb).square().mean() + (render.alpha - truth.alpha).square().mean()).backward()
        optimizer.step()
        representation.density_control(owner, optimizer, render, step, 64)
        assert step >= 40 or bool(representation.occupancy.cells.all()) == fitted
    assert not representation.occupancy.cells.all()
    with torch.no_grad():
        density, _ = representation.field(dict(owner.raw.items()), parts[None])
    assert density[0, 0] > 5
    assert density[0, 1] > 5 or not fitted


@pytest.mark.parametrize("name", [*FIELDS, "ib_planes"])
def test_skipping_empty_space_changes_little_and_saves_a_lot(name):
    """Of a scene that starts as a ball in a void."""
    ball = ["representation.density.bias=-8.0", "representation.density.blob=12.0"]
    representation: VolumeRepresentation = build(chosen("representation", name, *ball))
    owner = SceneParameters(representation, representation.init(1, torch.Generator().manual_seed(0)))
    evaluated = []
    field = representation.field

    def counting(raw, x, sources=None):
        evaluated.append(x.shape[1])
        return field(raw, x, sources)

    representation.field = counting
    views = cameras(1, 2)
    with torch.no_grad():
        dense = owner.scene().render(views)
        torch.manual_seed(0)
        representation.density_control(owner, torch.optim.Adam(owner.param_groups()), dense, 0, 1)
        evaluated.clear()
        skipped = owner.scene().render(views)
    total = 2 * views.height * views.width * representation.volume.samples
    assert sum(evaluated) < 0.7 * total
    assert (skipped.rgb - dense.rgb).abs().max() < 0.05
