"""DDS and PDS against their closed forms: a source s, described by N(0.7, 0.3²), becomes N(1, 0.3²)."""

import pytest
import torch

from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step
from diffusion3d.guidance.editing import DDS, PDS
from particles import LAST, NULL, PROMPT, SOURCE, SPREAD, Still, gradient, line, make, make_prior, signal

SOURCES = torch.linspace(-1.0, 2.0, 8).view(8, 1, 1, 1, 1).expand(8, 1, 3, 1, 1).contiguous()


def editor(scheme, source=SOURCES, **options):
    guidance = make(scheme, source_prompt="source", **options)
    guidance.prepare(Still(source), guidance.prior.condition([""], None))
    return guidance


def rests(guidance, source=SOURCES):
    """Where each particle rests, with the same noise everywhere; its gradient is affine in x."""
    at = [gradient(guidance, source + d).double() for d in (0.0, 1.0)]
    return source.double() - at[0] / (at[1] - at[0])


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_dds_moves_every_particle_by_the_difference_of_the_means(scale, t):
    """So what the prompts do not speak of stays: every detail of the source, and the spread."""
    moved = rests(editor(DDS, t=t, scale=scale)) - SOURCES
    assert torch.allclose(moved, torch.full_like(moved, scale * (PROMPT - SOURCE)), atol=2e-3)


def test_dds_has_no_noise_where_the_denoisers_differ_by_a_constant():
    guidance = editor(DDS, t=0.5, scale=3.0)
    assert torch.allclose(gradient(guidance, SOURCES, seed=1), gradient(guidance, SOURCES, seed=2), atol=1e-5)


@pytest.mark.parametrize("scheme", [DDS, PDS])
def test_a_source_that_is_told_the_same_stays(scheme):
    guidance = editor(scheme, scale=7.5)
    guidance.texts["source"] = ""
    assert gradient(guidance, SOURCES).abs().max() < 1e-5


def latents(x, mean, t, stride, noise, noise_s):
    """z of N(mean, spread²) as the paper's program has it, in float64."""
    level = make_prior().schedule.alphas_cumprod.double()
    bar_t, bar_s, alpha_t = level[t], level[t - stride], level[t] / level[t - 1]
    x_t = bar_t.sqrt() * x + (1 - bar_t).sqrt() * noise
    x_s = bar_s.sqrt() * x + (1 - bar_s).sqrt() * noise_s
    x0 = mean + bar_t.sqrt() * SPREAD**2 / (bar_t * SPREAD**2 + 1 - bar_t) * (x_t - bar_t.sqrt() * mean)
    mu = bar_s.sqrt() * (1 - alpha_t) / (1 - bar_t) * x0 + alpha_t.sqrt() * (1 - bar_s) / (1 - bar_t) * x_t
    return (x_s - mu) / ((1 - bar_s) / (1 - bar_t) * (1 - alpha_t)).sqrt()


@pytest.mark.parametrize("stride", [1, 2, 20])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_pds_matches_stochastic_latents(stride, t):
    x = SOURCES + 0.3
    found = gradient(editor(PDS, t=t, scale=2.0, stride=stride), x).double()
    noise, noise_s = torch.randn(2, *x.shape, dtype=torch.float64)
    means = [NULL + 2 * (mean - NULL) for mean in (PROMPT, SOURCE)]
    z, z_source = (
        latents(v.double(), mean, round(t * LAST), stride, noise, noise_s)
        for v, mean in zip((x, SOURCES), means, strict=True)
    )
    assert torch.allclose(found, z - z_source, rtol=3e-3, atol=2e-4)


def test_pds_of_neighbouring_levels_is_dds_with_another_weight():
    x = SOURCES + torch.linspace(-1, 1, 8).view(8, 1, 1, 1, 1)
    found = gradient(editor(PDS, t=0.5, scale=2.0, stride=1), x) / gradient(editor(DDS, t=0.5, scale=2.0), x)
    assert torch.allclose(found, found.mean().expand_as(found), rtol=0.02)


def test_a_longer_stride_holds_the_edit_to_its_source():
    moved = [(rests(editor(PDS, t=0.5, stride=stride)) - SOURCES).mean().item() for stride in (1, 2, 10)]
    assert moved[0] == pytest.approx(PROMPT - SOURCE, abs=0.01)
    assert moved[0] > moved[1] > moved[2] > 0
    _, _, kept = signal(0.5)
    guidance = editor(PDS, t=0.5, stride=10)
    psi, c0, _ = guidance.coefficients(guidance.noised(SOURCES, guidance.prior.condition([""], None), Step(0, 1)))
    pull = c0 * (1 - kept)
    expected = ((PROMPT - SOURCE) * pull / (psi + pull)).mean().item()
    assert moved[2] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("scheme", [DDS, PDS])
def test_without_a_source_there_is_no_editing(scheme):
    for prompt in (None, "", "  "):
        with pytest.raises(UserError, match="source_prompt must say"):
            make(scheme, source_prompt=prompt)
    with pytest.raises(UserError, match="no source scene.*run=DIR"):
        gradient(make(scheme, source_prompt="source"), line(0.0))
    with pytest.raises(UserError, match="stride=0"):
        make(PDS, source_prompt="source", stride=0)
