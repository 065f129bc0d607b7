"""Sample then reconstruct against a prior whose denoiser, and so every sample and every SDEdit, is known exactly."""

import pytest
import torch

from diffusion3d.backgrounds import Backgrounds
from diffusion3d.camera_sampling import Orbit
from diffusion3d.diffusion.sampler import Sampler
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step
from diffusion3d.guidance.reconstruct import Reconstruct
from gaussian_prior import GaussianPrior, Unseen
from particles import Still

PROMPT, NULL, SPREAD = 0.55, 0.4, 0.1
MANY = 1500
"""Views, where their mean and spread are wanted; one pixel each."""


class Spied(GaussianPrior):
    """Remembers the levels that it was asked for."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.levels = []

    def denoise(self, x_t, t, condition):
        assert condition.cameras.shape == x_t.shape[:2] == t.shape
        self.levels.append(t)
        return super().denoise(x_t, t, condition)


def make(views=8, joint=4, steps=10, scale=1.0, **options):
    prior = Spied(PROMPT, NULL, SPREAD)
    return Reconstruct(prior, Sampler(steps), views=views, joint=joint, scale=scale, rescale=0.0, **options)


def look(guidance, step, camera, show):
    """(cameras, losses) of a step that renders `show`, which maps cameras to images."""
    cameras = guidance.cameras(camera, step)
    background = guidance.background(Backgrounds(), step)
    condition = guidance.prior.condition([""], cameras, background)
    return cameras, guidance(Unseen(), Still(show(cameras)).render(cameras), cameras, condition, step)


def flat(value):
    return lambda cameras: torch.full((1, cameras.shape[1], 3, 1, 1), value)


def drawn(level, value=0.3, **options):
    torch.manual_seed(0)
    guidance = make(MANY, MANY, levels=[level], **options)
    look(guidance, Step(0, 1), Orbit(1, MANY), flat(value))
    return guidance.targets


@pytest.mark.parametrize(("scale", "mean"), [(0.0, NULL), (1.0, PROMPT), (2.0, 2 * PROMPT - NULL)])
def test_the_first_round_draws_from_the_prior_alone(scale, mean):
    targets = drawn(1.0, steps=200, scale=scale)
    assert targets.mean().item() == pytest.approx(mean, abs=0.005)
    assert targets.std().item() == pytest.approx(SPREAD, rel=0.08)
    assert torch.allclose(drawn(1.0, value=0.9, steps=200, scale=scale), targets, atol=1e-3), (
        "nothing is left of the scene"
    )


@pytest.mark.parametrize("level", [0.2, 0.5, 0.8])
def test_sdedit_moves_renders_as_far_as_its_level_says(level):
    """DDIM's many small steps follow the probability flow, which scales what x_t is away from alpha m by v / sqrt(alpha² v² +
    sigma²)."""
    targets = drawn(level, steps=1000)
    alpha, sigma = GaussianPrior().schedule.signal(torch.tensor(round(level * 1000) - 1), torch.zeros(()))
    shrink = SPREAD / (alpha**2 * SPREAD**2 + sigma**2).sqrt()
    assert targets.mean().item() == pytest.approx(float(PROMPT + shrink * alpha * (0.3 - PROMPT)), abs=0.006)
    assert targets.std().item() == pytest.approx(float(shrink * sigma), rel=0.06)


def test_at_level_zero_renders_stay_as_they_are():
    guidance = make(levels=[0.0])
    _, losses = look(guidance, Step(0, 1), Orbit(1), flat(0.3))
    assert (guidance.targets == 0.3).all() and guidance.prior.calls == 0 and losses["reconstruct"] == 0


def test_a_scene_that_can_show_them_becomes_the_targets():
    torch.manual_seed(0)
    guidance, camera, steps = make(levels=[1.0, 0.3]), Orbit(1, 2), 400
    scene = torch.full((8, 3), 0.5, requires_grad=True)
    adam = torch.optim.Adam([scene], lr=0.02)
    for index in range(steps):
        for group in adam.param_groups:
            group["lr"] = 0.02 * (1 - index % 200 / 200)
        if index == 200:
            assert torch.allclose(scene, guidance.targets[0, :, :, 0, 0], atol=2e-3), "of the first round"
        _, losses = look(guidance, Step(index, steps), camera, lambda _: scene[guidance.chosen][None, ..., None, None])
        adam.zero_grad()
        losses["reconstruct"].backward()
        adam.step()
    assert torch.allclose(scene, guidance.targets[0, :, :, 0, 0], atol=2e-3)
    assert guidance.targets.std() > SPREAD / 2, "views that no scene holds together stay samples, not their mean"
    rounds = [10, len([t for t in Sampler(10).timesteps(guidance.prior.schedule) if 0 <= t < 300])]
    assert guidance.prior.calls == 2 * sum(rounds), "two groups a round, and no passes in between"


def test_later_views_are_drawn_beside_the_first_which_are_clean_by_then():
    guidance = make(views=6, joint=2, levels=[1.0])
    look(guidance, Step(0, 1), Orbit(1), flat(0.3))
    assert guidance.groups.tolist() == [[0, 3], [1, 4], [2, 5]], "of a group, views are far apart"
    levels = guidance.prior.levels
    assert [t.shape[1] for t in levels] == [2] * 10 + [4] * 20
    assert all((t >= 0).all() for t in levels[:10])
    assert all(((t == -1) == torch.tensor([True, False, True, False])).all() for t in levels[10:])


def test_a_step_looks_through_cameras_of_targets_and_a_round_through_new_ones():
    torch.manual_seed(0)
    guidance, camera = make(levels=[1.0, 0.0]), Orbit(1, 3)
    seen = [look(guidance, Step(index, 4), camera, flat(0.3))[0] for index in range(4)]
    assert [cameras.shape[1] for cameras in seen] == [8, 3, 8, 3]
    around = seen[0].azimuth[0].sort().values.diff()
    assert torch.allclose(around, torch.full_like(around, 45.0), atol=1e-3)
    for every, some in ((seen[0], seen[1]), (seen[2], seen[3])):
        same = (every.c2w[0][None] == some.c2w[0][:, None]).flatten(2).all(2)
        assert (same.sum(1) == 1).all() and every.near == some.near
    assert not torch.equal(seen[0].c2w, seen[2].c2w)


@pytest.mark.parametrize("error", [0.001, 0.05, 0.5])
def test_the_loss_is_half_the_squared_error_and_linear_from_huber_on(error):
    guidance = make(levels=[0.0, 0.0], huber=0.1, weight=2.0)
    look(guidance, Step(0, 4), Orbit(1, 4), flat(0.3))
    _, losses = look(guidance, Step(1, 4), Orbit(1, 4), flat(0.3 + error))
    distance = 3**0.5 * error
    exact = 2 * 0.01 * ((1 + (distance / 0.1) ** 2) ** 0.5 - 1)
    assert losses["reconstruct"].item() == pytest.approx(exact, rel=1e-3)
    if error < 0.01:
        assert exact == pytest.approx(2 * distance**2 / 2, rel=1e-3)
    if error > 0.1:
        assert exact == pytest.approx(2 * 0.1 * distance, rel=0.15)


def test_the_background_is_one_colour_all_along():
    guidance = make(background=[0.1, 0.2, 0.3])
    assert torch.equal(guidance.background(Backgrounds(), Step(3, 9)), torch.tensor([[0.1, 0.2, 0.3]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 6, "joint": 4}, "views=6 must be a multiple of guidance.joint=4"),
        ({"views": 0, "joint": 1}, "views=0"),
        ({"levels": []}, r"levels=\[\] must be shares"),
        ({"levels": [1.0, 1.5]}, "levels=.*1.5.* must be shares"),
        ({"huber": 0.0}, "huber=0 must be positive"),
        ({"background": [1.0, 2.0, 0.0]}, "background=.*red, green and blue"),
        ({"scale": -1.0}, "scale=-1 must not be negative"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options, message):
    with pytest.raises(UserError, match=message) as refusal:
        make(**options)
    assert "\n" not in str(refusal.value)
