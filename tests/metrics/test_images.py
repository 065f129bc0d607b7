import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from diffusion3d.metrics.images import psnr, ssim


def pair(size=40):
    generator = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8, generator=generator), size, mode="bicubic").clamp(
        0, 1
    )
    return (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


def numpy(image):
    return image.permute(1, 2, 0).double().numpy()


def test_psnr_is_that_of_scikit_image():
    images, truth = pair()
    expected = [peak_signal_noise_ratio(numpy(t), numpy(i), data_range=1) for i, t in zip(images, truth, strict=True)]
    assert psnr(images, truth).tolist() == pytest.approx(expected, abs=1e-4)


def test_ssim_is_that_of_scikit_image():
    """Wang et al.'s settings; scikit-image averages the places where the window fits, as we do."""
    images, truth = pair()
    expected = [
        structural_similarity(
            numpy(t),
            numpy(i),
            channel_axis=-1,
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for i, t in zip(images, truth, strict=True)
    ]
    assert ssim(images, truth).tolist() == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="at least 11 x 11 pixels"):
        ssim(images[..., :8], truth[..., :8])


def test_ssim_has_a_gradient_towards_the_truth():
    images, truth = pair()
    images.requires_grad_()
    for _ in range(20):
        (gradient,) = torch.autograd.grad(ssim(images, truth).sum(), images)
        images = (images + 2 * gradient).detach().requires_grad_()
    assert (ssim(images, truth) > ssim(pair()[0], truth) + 0.02).all()


def test_masked_psnr_counts_the_pixels_inside():
    truth = torch.zeros(2, 3, 4, 4)
    images = truth.clone()
    images[:, :, 0, 0], images[:, :, 3, 3] = 0.1, 1.0
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, :, 0, :2] = True
    found = psnr(images, truth, mask)
    assert found[0].item() == pytest.approx(-10 * math.log10(0.01 / 2), abs=1e-4) and np.isnan(found[1].item())
