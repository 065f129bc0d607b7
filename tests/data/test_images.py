"""Pictures of every mode that Pillow writes."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from diffusion3d.data.images import image_size, open_image, read_pixels
from diffusion3d.errors import UserError

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([RAMP, 255 - RAMP, RAMP // 2], 2)


def saved(tmp_path, image, name="a.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_16_bit_grey_is_scaled(tmp_path):
    deep = RAMP.astype(np.uint16) * 257 + 100
    pixels = read_pixels(saved(tmp_path, Image.fromarray(deep)), 8, 6)
    assert (pixels == RAMP[..., None]).all() and pixels.shape == (6, 8, 3)


def test_16_bit_colour_is_scaled(tmp_path):
    """A hand-made PNG, since Pillow writes none: one row, 16 bits a channel."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">6H", 0, 32768, 65535, 65535, 256, 0)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    path = tmp_path / "deep.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert np.abs(read_pixels(path, 2, 1)[0].astype(int) - [[0, 128, 255], [255, 1, 0]]).max() <= 1


def test_palettes_are_expanded_with_their_transparency(tmp_path):
    image = Image.fromarray(COLOUR).quantize(16)
    assert (read_pixels(saved(tmp_path, image), 8, 6) == np.asarray(image.convert("RGB"))).all()
    image.info["transparency"] = image.getpixel((0, 0))
    pixels = read_pixels(saved(tmp_path, image, transparency=image.getpixel((0, 0))), 8, 6)
    assert pixels.shape[2] == 4 and pixels[0, 0].tolist() == [0, 0, 0, 0] and pixels[5, 7, 3] == 255


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "LA", "RGBA"])
def test_other_modes_become_rgb_with_alpha_where_there_is_some(tmp_path, mode):
    image = Image.fromarray(COLOUR).convert(mode)
    pixels = read_pixels(saved(tmp_path, image), 8, 6)
    assert pixels.shape[2] == (4 if mode.endswith("A") else 3)
    assert (pixels[..., :3] == np.asarray(image.convert("RGB"))).all()


def test_alpha_is_premultiplied_before_averaging(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0], pixels[1] = (255, 0, 0, 255), (0, 255, 0, 0)
    read = read_pixels(saved(tmp_path, Image.fromarray(pixels)), 1, 1)
    assert np.abs(read[0, 0].astype(int) - [128, 0, 0, 128]).max() <= 1


@pytest.mark.parametrize(
    ("image", "name", "message"),
    [
        (Image.fromarray(COLOUR).convert("CMYK"), "a.jpg", r"a.jpg is a CMYK image; save it as RGB"),
        (Image.fromarray(COLOUR).convert("LAB"), "a.tif", r"a.tif is a LAB image"),
        (Image.fromarray(RAMP.astype(np.float32)), "a.tif", r"a.tif is a F image"),
        (Image.fromarray(RAMP.astype(np.int32) * 100000), "a.tif", r"a.tif holds 32-bit integers"),
    ],
)
def test_colour_spaces_that_need_a_choice_are_refused_by_name(tmp_path, image, name, message):
    with pytest.raises(UserError, match=message):
        read_pixels(saved(tmp_path, image, name), 8, 6)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_images_that_are_cut_off_are_refused(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=rf"{name} is not a readable image") as caught:
        read_pixels(path, 64, 64)
    assert "\n" not in str(caught.value)


def test_missing_images_and_bombs_are_refused(tmp_path, monkeypatch):
    for read in (image_size, lambda path: read_pixels(path, 1, 1)):
        with pytest.raises(UserError, match=r"none.png is not a readable image: .*No such file"):
            read(tmp_path / "none.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"a.png is not a readable image: .*bomb"):
        read_pixels(saved(tmp_path, Image.fromarray(COLOUR)), 8, 6)


def test_a_picture_in_memory_is_named_in_messages():
    with pytest.raises(UserError, match=r"x.zip/wood.jpg is not a readable image"):
        open_image(io.BytesIO(b"nothing"), "x.zip/wood.jpg")
