"""A background of the scene's own."""

import torch

from choices import cameras, chosen
from diffusion3d.rendering.render import composite
from diffusion3d.representations.base import SceneParameters
from diffusion3d.tasks.build import build

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
