"""The C++ kernel against its plain-torch twin, and what only the kernel can get wrong."""

import functools
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion3d.errors import UserError
from diffusion3d.rendering import kernel_name, libraries, rasterization

twin = functools.partial(rasterization, backend="torch")
NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmats")

CASES = {
    "plain": ({}, {}),
    "dense enough to end pixels": ({"count": 1500, "scale": 0.2}, {}),
    "several tiles": ({"count": 400, "width": 150, "height": 70}, {}),
    "one pixel": ({"width": 1, "height": 1}, {}),
    "long needles": ({"scale": 0.5, "count": 60}, {}),
    "one channel": ({"channels": 1}, {}),
    "four channels": ({"channels": 4}, {"render_mode": "RGB"}),
    "sixteen channels": ({"channels": 16, "cameras": 2}, {"absgrad": True}),
    "depth": ({}, {"render_mode": "D"}),
    "colours and depth": ({"cameras": 2}, {"render_mode": "RGB+D", "packed": False}),
    "expected depth": ({"count": 600, "scale": 0.15}, {"render_mode": "RGB+ED"}),
    "antialiased": ({"scale": 0.01}, {"rasterize_mode": "antialiased"}),
    "batches": ({"scenes": (2, 3), "cameras": 2, "count": 50, "seed": 1}, {"absgrad": True, "packed": False}),
    "no blur": ({}, {"eps2d": 0.0}),
    "near, far and clipped": ({"cameras": 2}, {"near_plane": 2.8, "far_plane": 3.5, "radius_clip": 4.0}),
}


def close(value, expected, tolerance=2e-5):
    assert (value - expected).norm() <= tolerance * expected.norm() + 1e-12


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_agree_with_the_twin(kernel, make_scene, render_with_gradients, name):
    scene, options = make_scene(**CASES[name][0]), CASES[name][1]
    image, alpha, meta, gradients = render_with_gradients(rasterization, scene, **options)
    image2, alpha2, meta2, gradients2 = render_with_gradients(twin, scene, **options)
    close(image, image2)
    close(alpha, alpha2)
    assert torch.equal(meta["radii"], meta2["radii"])
    for key in ("means2d", "depths", "conics", "opacities"):
        close(meta[key].detach(), meta2[key].detach())
    assert gradients.keys() == gradients2.keys()
    for key in gradients if options.get("render_mode") != "D" else gradients.keys() - {"colors"}:
        close(gradients[key], gradients2[key], 1e-4 if "ED" in options.get("render_mode", "") else 2e-5)
    if options.get("absgrad"):
        close(meta["means2d"].absgrad, meta2["means2d"].absgrad)
        assert (meta["means2d"].absgrad >= gradients["means2d"].abs() - 1e-4).all()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics_and_backgrounds_agree(kernel, make_scene, render_with_gradients, degree):
    scene = make_scene(cameras=2)
    generator = torch.Generator().manual_seed(1)
    scene["colors"] = torch.randn(200, 16, 3, generator=generator)
    scene["backgrounds"] = torch.rand(2, 3, generator=generator)
    wrt = (*NAMES, "backgrounds")
    image, _, _, gradients = render_with_gradients(rasterization, scene, wrt, sh_degree=degree)
    image2, _, _, gradients2 = render_with_gradients(twin, scene, wrt, sh_degree=degree)
    close(image, image2)
    for key in gradients2:
        close(gradients[key], gradients2[key])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_one_input_alone_are_the_same(kernel, make_scene, render_with_gradients, name):
    scene = make_scene(cameras=2)
    alone = make_scene(cameras=2)
    everything = render_with_gradients(rasterization, scene)[3][name]
    inputs = {k: v.requires_grad_(k == name) if torch.is_tensor(v) else v for k, v in alone.items()}
    image, alpha, _ = rasterization(**inputs)
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in (image, alpha)]
    ((image * weights[0]).sum() + (alpha * weights[1]).sum()).backward()
    assert torch.equal(inputs[name].grad, everything)


def test_any_number_of_threads_gives_the_same_bits(kernel, make_scene, render_with_gradients):
    scene = make_scene(count=3000, width=200, height=130, cameras=2)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            image, alpha, _, gradients = render_with_gradients(rasterization, scene, NAMES)
            results.append((image, alpha, *gradients.values()))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def _child(scene, queue):
    torch.set_num_threads(2)
    queue.put(rasterization(**scene)[0].sum().item())


def test_a_forked_child_renders(kernel, make_scene):
    scene = make_scene(count=1000, width=200)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = rasterization(**scene)[0].sum().item()
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_child, args=(scene, queue))
        child.start()
        assert queue.get(timeout=30) == expected
        child.join(10)
    finally:
        torch.set_num_threads(before)


def test_backward_twice_and_without_forward_inputs_alive(kernel, make_scene):
    scene = make_scene()
    scene["means"].requires_grad_(True)
    image, _, _ = rasterization(**scene)
    image.sum().backward(retain_graph=True)
    first = scene["means"].grad.clone()
    scene["means"].grad = None
    image.sum().backward()
    assert torch.equal(scene["means"].grad, first)


def test_strides_do_not_matter(kernel, make_scene):
    scene = make_scene()
    image = rasterization(**scene)[0]
    for name in NAMES[:5]:
        wide = torch.stack([scene[name], torch.full_like(scene[name], torch.nan)], -1)
        scene[name] = wide[..., 0]
    assert torch.equal(rasterization(**scene)[0], image)


@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic", "torch"])
def test_the_environment_chooses_the_kernel(kernel, make_scene, monkeypatch, isa):
    monkeypatch.delenv(libraries.VARIABLE, raising=False)
    expected = rasterization(**make_scene())[0]
    monkeypatch.setenv(libraries.VARIABLE, isa)
    if isa != "torch" and libraries.ISAS[isa] - libraries._cpu_flags():
        with pytest.raises(UserError, match=f"{isa}: this CPU lacks"):
            kernel_name()
        return
    assert kernel_name() == ("torch" if isa == "torch" else f"c++ {isa}")
    close(rasterization(**make_scene())[0], expected)


def test_a_damaged_library_is_passed_over(monkeypatch, tmp_path, caplog):
    (tmp_path / "_kernels_generic.so").write_bytes(b"no library")
    monkeypatch.setattr(libraries, "__file__", str(tmp_path / "libraries.py"))
    assert libraries._load.__wrapped__("") is None
    assert "_kernels_generic.so cannot be used" in caplog.text and "torch renders" in caplog.text
    with pytest.raises(UserError, match="DIFFUSION3D_KERNEL=generic: it is not built, or damaged"):
        libraries._load.__wrapped__("generic")


def test_an_unknown_kernel_is_refused(monkeypatch):
    monkeypatch.setenv("DIFFUSION3D_KERNEL", "sse9")
    with pytest.raises(UserError, match="DIFFUSION3D_KERNEL=sse9 is unknown; choose avx512, avx2, generic or torch"):
        kernel_name()


@pytest.mark.slow
def test_setup_builds_the_libraries_and_does_without_a_compiler(tmp_path):
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        "--build-lib",
        str(tmp_path / "a"),
        "--build-temp",
        str(tmp_path / "b"),
    ]
    missing = {**os.environ, "CC": "/no/compiler", "CXX": "/no/compiler"}
    done = subprocess.run(command, cwd=root, env=missing, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.so"))
