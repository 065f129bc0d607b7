"""Pictures and videos, read back."""

import sys

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from diffusion3d.camera_sampling import Orbit
from diffusion3d.errors import exhausted
from diffusion3d.export.pictures import render_frames, to_uint8, write_gif, write_grid, write_video
from diffusion3d.rendering.render import Render

FRAMES, SIZE = 11, 8
WHITE = torch.ones(1, 3)


class Plate:
    """Shows depth 1 … 11 in the turntable's frames 0 … 10: opaque left, half seen in the middle, nothing on the right."""

    def render(self, cameras, pixels=None, sources=None, shading=None):
        views = cameras.shape[1]
        frame = (cameras.azimuth % 360 / 360 * FRAMES).round().view(1, views, 1, 1, 1)
        alpha = torch.zeros(1, views, 1, SIZE, SIZE)
        alpha[..., :4], alpha[..., 4:6] = 1.0, 0.3
        depth = torch.where(alpha > 0, (frame + 1).expand_as(alpha), 0.0)
        return Render(alpha.expand(-1, -1, 3, -1, -1) * 0.5, alpha, depth)


def frames(chunk=8):
    return render_frames(Plate(), Orbit(SIZE).turntable(FRAMES), WHITE, chunk)


def test_depth_is_normalised_once_over_the_whole_video():
    rgb, depth = frames()
    expected = 1 - 0.8 * torch.arange(FRAMES) / (FRAMES - 1)
    torch.testing.assert_close(depth[:, 0, 0, 0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(depth[:, 0, 0, 5], 0.3 * expected, atol=1e-5, rtol=0)
    assert (depth[:, 0, 0, 7] == 0).all()
    assert torch.allclose(rgb[:, :, 0, 0], torch.tensor(0.5)) and (rgb[..., 7] == 1).all()
    assert torch.allclose(rgb[..., 5], torch.tensor(0.5 * 0.3 + 0.7))
    assert all(map(torch.equal, frames(3), (rgb, depth))), "whatever is rendered at once"


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_nothing_and_mist_have_black_depth(alpha):
    class Mist:
        def render(self, cameras, pixels=None, sources=None, shading=None):
            some = torch.full((1, cameras.shape[1], 1, SIZE, SIZE), alpha)
            return Render(some.expand(-1, -1, 3, -1, -1), some, 10 * some)

    rgb, depth = render_frames(Mist(), Orbit(SIZE).turntable(3), WHITE)
    assert (depth == 0).all() and (rgb == 1).all()


def test_to_uint8_rounds_and_clamps():
    values = torch.tensor([-0.5, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 1.7]).view(1, 2, 3)
    assert to_uint8(values).tolist() == [[[0, 0, 0], [1, 255, 255]]]


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 48, 3), (33, 47, 1)])
def test_videos_can_be_read(height, width, channels, tmp_path):
    shade = torch.linspace(0, 1, 6).view(6, 1, 1, 1).expand(6, channels, height, width)
    path = write_video(tmp_path / "v.mp4", shade, fps=12)
    with imageio.get_reader(path) as reader:
        assert reader.get_meta_data()["fps"] == pytest.approx(12)
        assert reader.get_meta_data()["codec"] == "h264"
        read = np.stack([frame for frame in reader])  # noqa: C416, list() asks for a length
    assert read.shape == (6, height // 2 * 2, width // 2 * 2, 3)
    assert np.abs(read.mean((1, 2, 3)) / 255 - np.linspace(0, 1, 6)).max() < 0.03


def test_gifs_loop_and_keep_their_frames(tmp_path):
    red = torch.zeros(3, 3, 16, 16)
    red[:, 0] = torch.tensor([0.2, 0.6, 1.0]).view(3, 1, 1)
    with Image.open(write_gif(tmp_path / "v.gif", red, fps=20)) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"], gif.info["duration"]) == (3, (16, 16), 0, 50)
        for k, value in enumerate((51, 153, 255)):
            gif.seek(k)
            assert np.abs(np.asarray(gif.convert("RGB"))[0, 0].astype(int) - [value, 0, 0]).max() <= 8


def test_grids_have_a_row_per_item_and_its_label_above(tmp_path):
    rows = [torch.full((3, 3, 8, 10), value) for value in (0.0, 1.0)]
    with Image.open(write_grid(tmp_path / "g.png", rows)) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (16, 30, 3) and (pixels[:8] == 0).all() and (pixels[8:] == 255).all()
    labels = ["a château, 介绍\nof two lines 🏰", "x" * 10_000]
    with Image.open(write_grid(tmp_path / "l.png", [row * 0 for row in rows], labels, scale=2)) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * (16 + 16), 60, 3)
    assert (pixels[16:32] == 0).all() and (pixels[48:] == 0).all()
    assert (pixels[:16] != 255).any() and (pixels[:16] == 255).any(), "there is a label"


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit to the size of files")
@pytest.mark.parametrize(
    ("name", "write"),
    [("a.mp4", write_video), ("a.gif", write_gif), ("a.png", lambda path, frames: write_grid(path, [frames]))],
)
def test_what_cannot_be_written_to_its_end_leaves_the_old_file(name, write, tmp_path):
    import resource

    path, before = tmp_path / name, resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_bytes(b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large|ffmpeg stopped") as caught:
            write(path, torch.rand(8, 3, 64, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(path) and exhausted(caught.value) is not None
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]
