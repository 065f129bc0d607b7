"""Gaussians in files, read and written by independent libraries: plyfile, and gaussforge (Niantic's own SPZ code inside)."""

import gzip
import struct

import numpy as np
import pytest
import torch
from gaussforge import GaussForge
from gsplat.cuda._torch_impl import _spherical_harmonics
from plyfile import PlyData, PlyElement
from scipy.spatial.transform import Rotation

from diffusion3d.errors import UserError
from diffusion3d.representations.gsplat import GaussianSplats
from diffusion3d.representations.splat_files import READERS, WRITERS, read_splats
from diffusion3d.representations.splats import SH_C0, Splats

COUNT = 150
TO_Y_UP = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
"""Front +x, up +z to front +z, up +y."""


def random_splats(degree=0, count=COUNT):
    generator = torch.Generator().manual_seed(degree)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return Splats(
        0.5 * normal(count, 3),
        0.7 * normal(count, 3) - 4,
        normal(count, 4),
        2 * normal(count),
        0.3 * normal(count, (degree + 1) ** 2, 3),
    )


def foreign_rows(splats):
    """The Gaussians as a structured array in the layout of Kerbl et al.'s release, filled by hand."""
    rest = [f"f_rest_{i}" for i in range(3 * (splats.sh.shape[1] - 1))]
    names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity"]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    rows = np.zeros(len(splats.means), [(name, "f4") for name in names])
    for c in range(3):
        rows["xyz"[c]], rows[f"scale_{c}"], rows[f"f_dc_{c}"] = (
            splats.means[:, c],
            splats.log_scales[:, c],
            splats.sh[:, 0, c],
        )
        for k in range(1, splats.sh.shape[1]):
            rows[f"f_rest_{c * (splats.sh.shape[1] - 1) + k - 1}"] = splats.sh[:, k, c]
    for c in range(4):
        rows[f"rot_{c}"] = splats.quats[:, c]
    rows["opacity"] = splats.opacity_logits
    return rows


def foreign_ply(path, splats, **options):
    PlyData([PlyElement.describe(foreign_rows(splats), "vertex")], **options).write(str(path))
    return path


def columns(data):
    """What plyfile reads: means, log scales, quats, opacity logits and harmonics [N, K, 3]."""
    vertex = PlyData.read(data)["vertex"]
    names = [p.name for p in vertex.properties]
    rest = sum(name.startswith("f_rest_") for name in names) // 3

    def take(*fields):
        return np.stack([vertex[field] for field in fields], 1).astype(np.float64)

    higher = [take(*(f"f_rest_{c * rest + k}" for c in range(3))) for k in range(rest)]
    return {
        "means": take("x", "y", "z"),
        "log_scales": take("scale_0", "scale_1", "scale_2"),
        "quats": take("rot_0", "rot_1", "rot_2", "rot_3"),
        "opacity_logits": vertex["opacity"].astype(np.float64),
        "sh": np.stack([take("f_dc_0", "f_dc_1", "f_dc_2"), *higher], 1),
    }


def converted(data, source, target, version=2):
    result = GaussForge().convert(data, source, target, False, version)
    assert "error" not in result, result
    return result["data"]


def covariances(log_scales, quats):
    rotation = Rotation.from_quat(np.asarray(quats)[:, [1, 2, 3, 0]]).as_matrix()
    half = rotation * np.exp(np.asarray(log_scales))[:, None]
    return half @ half.swapaxes(1, 2)


def colours(sh, directions):
    degree = int(np.sqrt(np.asarray(sh).shape[1])) - 1
    return _spherical_harmonics(degree, torch.as_tensor(directions), torch.as_tensor(sh).double()).numpy()


def close(splats, other, tolerance):
    """Whether two sets of Gaussians look the same; tolerances of means, covariances (relative), opacity and harmonics."""
    means, spread, opacity, harmonics = tolerance
    np.testing.assert_allclose(splats.means, other.means, atol=means)
    expected = covariances(splats.log_scales, splats.quats)
    size = np.linalg.norm(expected, axis=(1, 2), keepdims=True)
    found = covariances(other.log_scales, other.quats)
    np.testing.assert_allclose(found / size, expected / size, atol=spread)
    np.testing.assert_allclose(splats.opacity_logits.sigmoid(), other.opacity_logits.sigmoid(), atol=opacity)
    np.testing.assert_allclose(splats.sh, other.sh, atol=harmonics)


@pytest.mark.parametrize("degree", range(4))
def test_plyfile_reads_what_we_write_as_ply(degree, tmp_path):
    splats = random_splats(degree)
    (tmp_path / "s.ply").write_bytes(WRITERS["ply"](splats))
    found = columns(str(tmp_path / "s.ply"))
    for name in ("means", "log_scales", "opacity_logits", "sh"):
        np.testing.assert_array_equal(found[name].astype(np.float32), getattr(splats, name).numpy(), err_msg=name)
    np.testing.assert_allclose(found["quats"], torch.nn.functional.normalize(splats.quats, dim=-1), atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"byte_order": "<"}, {"byte_order": ">"}, {"byte_order": "<", "comments": ["a", "b"]}]
)
@pytest.mark.parametrize("degree", range(4))
def test_we_read_what_plyfile_writes(degree, options, tmp_path):
    splats = random_splats(degree)
    found = read_splats(foreign_ply(tmp_path / "s.PLY", splats, **options))
    assert found.degree == degree
    for name in ("means", "log_scales", "quats", "opacity_logits", "sh"):
        torch.testing.assert_close(getattr(found, name), getattr(splats, name), rtol=0, atol=0)


def test_other_elements_and_doubles_do_not_disturb(tmp_path):
    splats = random_splats()
    rows = foreign_rows(splats)
    before = PlyElement.describe(np.zeros(7, [("a", "u1"), ("b", "f8")]), "camera")
    vertex = PlyElement.describe(rows.astype([(name, "f8") for name in rows.dtype.names]), "vertex")
    after = PlyElement.describe(np.array([([1, 2, 3],)], [("vertex_indices", "i4", (3,))]), "face")
    PlyData([before, vertex, after], byte_order="<").write(str(tmp_path / "s.ply"))
    close(splats, read_splats(tmp_path / "s.ply"), (0, 1e-5, 0, 0))


@pytest.mark.parametrize("degree", range(4))
def test_niantics_code_reads_what_we_write_as_spz(degree, tmp_path):
    splats = random_splats(degree)
    (tmp_path / "s.ply").write_bytes(converted(WRITERS["spz"](splats), "spz", "ply"))
    found = columns(str(tmp_path / "s.ply"))
    np.testing.assert_allclose(found["means"], splats.means.numpy() @ TO_Y_UP.T, atol=2**-18)
    expected = TO_Y_UP @ covariances(splats.log_scales, splats.quats) @ TO_Y_UP.T
    size = np.linalg.norm(expected, axis=(1, 2), keepdims=True)
    difference = np.abs(covariances(found["log_scales"], found["quats"]) - expected) / size
    assert np.median(difference.max((1, 2))) < 0.04 and difference.max() < 0.25, "8 bits a value, and w from the others"
    np.testing.assert_allclose(
        1 / (1 + np.exp(-found["opacity_logits"])), splats.opacity_logits.sigmoid(), atol=0.51 / 255
    )
    np.testing.assert_allclose(found["sh"][:, 0], splats.sh[:, 0].clamp(-3.33, 3.33), atol=0.51 / 255 / 0.15)
    directions = np.random.default_rng(0).normal(size=(COUNT, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    seen = colours(found["sh"], directions @ TO_Y_UP.T)
    difference = np.abs(seen - colours(splats.sh, directions))
    assert difference.mean() < 0.05 and difference.max() < 0.3


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("degree", range(4))
def test_we_read_what_niantics_code_writes(degree, version, tmp_path):
    splats = random_splats(degree)
    turned = Splats(splats.means[:, [1, 2, 0]], splats.log_scales, splats.quats, splats.opacity_logits, splats.sh)
    data = converted(foreign_ply(tmp_path / "s.ply", turned).read_bytes(), "ply", "spz", version)
    (tmp_path / "s.spz").write_bytes(data)
    (tmp_path / "back.ply").write_bytes(converted(data, "spz", "ply"))
    assert struct.unpack("<II", gzip.decompress(data)[:8]) == (0x5053474E, version)
    found, theirs = read_splats(tmp_path / "s.spz"), columns(str(tmp_path / "back.ply"))
    np.testing.assert_allclose(found.means, theirs["means"][:, [2, 0, 1]], atol=1e-6)
    expected = TO_Y_UP.T @ covariances(theirs["log_scales"], theirs["quats"]) @ TO_Y_UP
    np.testing.assert_allclose(covariances(found.log_scales, found.quats), expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.opacity_logits, theirs["opacity_logits"].clip(-13.8, 13.8), atol=1e-3)
    directions = np.eye(3)[np.arange(COUNT) % 3]
    np.testing.assert_allclose(colours(found.sh, directions), colours(theirs["sh"], directions @ TO_Y_UP.T), atol=1e-5)


def test_the_splat_format_is_what_its_definition_says(tmp_path):
    """32 bytes: three float32 centres, three float32 scales, RGBA and a quaternion (w first, 128 + 128 q) as bytes."""
    splats = random_splats()
    data = WRITERS["splat"](splats)
    rows = np.frombuffer(data, [("p", "<f4", 3), ("s", "<f4", 3), ("c", "u1", 4), ("q", "u1", 4)])
    assert len(data) == 32 * COUNT
    order = np.array([int(np.abs(splats.means.numpy() - row["p"]).sum(1).argmin()) for row in rows])
    assert sorted(order) == list(range(COUNT))
    np.testing.assert_array_equal(rows["p"], splats.means[order])
    np.testing.assert_allclose(rows["s"], splats.log_scales[order].exp(), rtol=1e-6)
    rgb = (0.5 + SH_C0 * splats.sh[order, 0]).clamp(0, 1)
    np.testing.assert_allclose(rows["c"][:, :3] / 255, rgb, atol=0.51 / 255)
    np.testing.assert_allclose(rows["c"][:, 3] / 255, splats.opacity_logits[order].sigmoid(), atol=0.51 / 255)
    quats = torch.nn.functional.normalize(splats.quats[order], dim=-1)
    np.testing.assert_allclose((rows["q"].astype(float) - 128) / 128, quats, atol=1.01 / 128)
    importance = (splats.log_scales.sum(1).exp() * splats.opacity_logits.sigmoid())[order]
    assert (importance.diff() <= 1e-12).all(), "the most important first"
    (tmp_path / "s.ply").write_bytes(converted(data, "splat", "ply"))
    found = columns(str(tmp_path / "s.ply"))
    np.testing.assert_array_equal(found["means"].astype(np.float32), splats.means[order])
    np.testing.assert_allclose(found["quats"], quats, atol=0.02)


def test_we_read_the_splat_file_of_another_program(tmp_path):
    splats = random_splats()
    data = converted(foreign_ply(tmp_path / "s.ply", splats).read_bytes(), "ply", "splat")
    (tmp_path / "s.splat").write_bytes(data)
    found = read_splats(tmp_path / "s.splat")
    order = [int((splats.means - mean).abs().sum(1).argmin()) for mean in found.means]
    expected = Splats(*(getattr(splats, n)[order] for n in ("means", "log_scales", "quats", "opacity_logits", "sh")))
    expected.sh.clamp_(-0.5 / SH_C0, 0.5 / SH_C0)
    close(expected, found, (1e-6, 0.1, 1.01 / 255, 1.01 / 255 / SH_C0))


@pytest.mark.parametrize("suffix", READERS)
def test_what_a_representation_becomes_comes_back(suffix, tmp_path):
    """From raw tensors over the activated scene and a file to raw tensors, whose scene is the same up to rounding."""
    rates = dict.fromkeys(("means", "quats", "scales", "opacities", "colors"), 0.1)
    representation = GaussianSplats(rates, count=80, scale=0.1)
    raw = representation.init(1, torch.Generator().manual_seed(0))
    raw["colors"] = 2 * torch.randn(1, 80, 3, generator=torch.Generator().manual_seed(1))
    raw["opacities"][0, 3] = -torch.inf
    scene = representation.scene(raw)
    splats = Splats.activated(scene.means[0], scene.quats[0], scene.scales[0], scene.opacities[0], scene.colors[0])
    assert len(splats.means) == 79, "padding is left out"
    (tmp_path / f"s.{suffix}").write_bytes(WRITERS[suffix](splats))
    back = representation.scene(read_splats(tmp_path / f"s.{suffix}").raw())
    order = [int((back.means[0] - mean).abs().sum(1).argmin()) for mean in splats.means]
    torch.testing.assert_close(back.means[0, order], splats.means, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.colors[0, order], splats.colors, atol=0.02, rtol=0)
    torch.testing.assert_close(back.opacities[0, order], splats.opacity_logits.sigmoid(), atol=0.003, rtol=0)
    torch.testing.assert_close(back.scales[0, order].log(), splats.log_scales, atol=0.04, rtol=0)


def header(version=2, count=COUNT, degree=0, bits=12, magic=0x5053474E):
    return struct.pack("<IIIBBBB", magic, version, count, degree, bits, 0, 0)


def ply_head(*lines):
    return "\n".join(["ply", "format binary_little_endian 1.0", *lines, "end_header", ""]).encode()


def with_nan(suffix):
    splats = random_splats()
    if suffix == "splat":
        data = bytearray(WRITERS["splat"](splats))
        data[0:4] = struct.pack("<f", np.nan)
        return bytes(data)
    splats.means[5, 1] = torch.nan
    return WRITERS[suffix](splats)


PLY, SPZ, SPLAT = (WRITERS[name](random_splats(1)) for name in ("ply", "spz", "splat"))
BAD = [
    ("ply", b"", "is no PLY"),
    ("ply", b"solid cube", "is no PLY"),
    ("ply", PLY[:200], "is no PLY"),
    ("ply", PLY[:-1], "cut off or its header lies: it promises 150 Gaussians and has room for 149"),
    ("ply", PLY.replace(b"vertex 150", b"vertex 999999999999"), "cut off or its header lies"),
    ("ply", PLY.replace(b"vertex 150", b"vertex -1"), "cut off or its header lies"),
    ("ply", PLY.replace(b"vertex 150", b"vertex many"), "header makes no sense"),
    ("ply", PLY.replace(b"vertex 150", b"vertex 0"), "holds no Gaussians"),
    ("ply", PLY.replace(b"property float x", b"property quad x"), "header makes no sense"),
    ("ply", PLY.replace(b"property float y", b"property float x"), "header makes no sense"),
    ("ply", PLY.replace(b"format binary_little_endian 1.0\n", b""), "header makes no sense"),
    ("ply", PLY.replace(b"binary_little_endian", b"ascii"), "format ascii; it must be binary"),
    ("ply", PLY.replace(b" opacity", b" transparency"), "its vertices lack opacity"),
    ("ply", PLY.replace(b" f_rest_8", b" f_rest_9"), "9 fields f_rest_"),
    ("ply", PLY.replace(b" f_rest_8", b" something"), "8 fields f_rest_"),
    ("ply", ply_head("element vertex 1", "property list uchar int x"), "header makes no sense"),
    ("ply", ply_head("element face 1", "property float x"), "header makes no sense"),
    ("ply", ply_head("element vertex 1", *(f"property float {c}" for c in "xyz")) + bytes(12), "lack f_dc_0"),
    ("ply", with_nan("ply"), "1 of 150 Gaussians hold NaN"),
    ("spz", b"", "cut off"),
    ("spz", b"no gzip at all", "gzip stream"),
    ("spz", gzip.compress(b"short", mtime=0), "ends before"),
    ("spz", SPZ[:-300], "gzip stream cannot be read"),
    ("spz", SPZ[:40] + bytes(60) + SPZ[100:], "damaged|lies"),
    ("spz", gzip.compress(header(magic=1) + bytes(10_000), mtime=0), "is no SPZ file"),
    ("spz", gzip.compress(header(version=9) + bytes(10_000), mtime=0), "version 9"),
    ("spz", gzip.compress(header(degree=7) + bytes(10_000), mtime=0), "degree 7"),
    ("spz", gzip.compress(header(count=2**32 - 1) + bytes(10_000), mtime=0), "promises 4294967295 Gaussians"),
    ("spz", gzip.compress(header(count=9_000_000) + bytes(10_000), mtime=0), "its header lies"),
    ("spz", gzip.compress(header(count=0), mtime=0), "holds no Gaussians"),
    ("splat", SPLAT[:-5], "no multiple of 32"),
    ("splat", b"", "holds no Gaussians"),
    ("splat", with_nan("splat"), "1 of 150 Gaussians hold NaN"),
    ("splat", SPLAT[:12] + struct.pack("<f", -1) + SPLAT[16:], "negative or NaN"),
    ("splat", SPLAT[:28] + bytes([128] * 4) + SPLAT[32:], "rotation of length 0"),
    ("obj", b"", "are read from .ply, .spz, .splat files"),
]


@pytest.mark.parametrize(("suffix", "content", "message"), BAD)
def test_bad_files_are_refused_in_one_line_that_names_them(suffix, content, message, tmp_path):
    path = tmp_path / f"the file.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_splats(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", READERS)
def test_a_missing_file_or_a_folder_is_refused(suffix, tmp_path):
    (tmp_path / f"folder.{suffix}").mkdir()
    for name in ("missing", "folder"):
        with pytest.raises(UserError, match=f"cannot read .*{name}"):
            read_splats(tmp_path / f"{name}.{suffix}")


def test_a_gzip_bomb_fills_no_memory(tmp_path):
    import resource

    bomb = gzip.compress(header(count=100) + bytes(2**28), compresslevel=1)
    (tmp_path / "bomb.spz").write_bytes(bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(read_splats(tmp_path / "bomb.spz").means) == 100, "what follows the Gaussians is left alone"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16
