"""Angles wrap around, and only fronts seen from the back are Janus."""

import math

import pytest
import torch

from diffusion3d.metrics.azimuth import azimuth_error, janus_share, median_and_flipped


def test_error_wraps_around():
    read, true = torch.tensor([350.0, 10.0, -170.0, 720.0]), torch.tensor([10.0, 350.0, 170.0, 180.0])
    assert azimuth_error(read, true).tolist() == [20, 20, 20, 180]


def test_median_and_flipped():
    true = torch.zeros(5)
    assert median_and_flipped(torch.tensor([1.0, -2.0, 3.0, 100.0, 180.0]), true) == (3, pytest.approx(0.4))


def test_janus_counts_fronts_among_back_views():
    true = torch.arange(24) * 15.0
    assert janus_share(true, true) == 0
    assert janus_share(torch.zeros(24), true) == 1
    mirrored = 180 - true  # front and back exchanged: what is read at the back is the front
    assert janus_share(mirrored, true) == pytest.approx(5 / 11)  # 150 … 210 of the eleven from 105 to 255
    assert janus_share(true - 20, true) == 0  # read a little too far forward


def test_janus_without_back_views():
    assert math.isnan(janus_share(torch.zeros(2), torch.tensor([0.0, 90.0])))
