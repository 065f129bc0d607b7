import torch

from diffusion3d.rendering.pixels import at


def test_pixels_are_counted_row_by_row_in_every_view():
    images = torch.arange(2 * 2 * 3 * 4 * 5).float().view(2, 2, 3, 4, 5)
    pixels = torch.tensor([[[0, 7], [19, 3]], [[5, 5], [12, 1]]])
    found = at(images, pixels)
    assert found.shape == (2, 2, 3, 2)
    for scene in range(2):
        for view in range(2):
            for number, pixel in enumerate(pixels[scene, view].tolist()):
                assert torch.equal(found[scene, view, :, number], images[scene, view, :, pixel // 5, pixel % 5])
    assert at(images, None) is images
