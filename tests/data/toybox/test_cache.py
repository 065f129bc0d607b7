"""The cache is exact, resumes, grows, and says what is wrong."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from diffusion3d.data.raycast import render
from diffusion3d.data.toybox import cache
from diffusion3d.data.toybox.__main__ import main
from diffusion3d.data.toybox.cache import CacheSpec, ToyboxCache, write
from diffusion3d.data.toybox.generate import draw
from diffusion3d.errors import UserError

SPEC = CacheSpec(size=32, views=4)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 4)
    monkeypatch.setattr(cache, "COMMIT", 2)


def pictures(folder, count, spec=SPEC):
    batch = ToyboxCache(folder).batch(range(count), range(spec.views), np.random.default_rng(0))
    return torch.cat([batch.images, batch.alpha], 2)


def test_batch_is_what_render_draws(tmp_path):
    write(tmp_path, SPEC, 3, workers=1, progress=False)
    reader = ToyboxCache(tmp_path)
    assert len(reader) == 3
    views = np.array([[2, 0], [1, 3]])
    batch = reader.batch([2, 0], views, np.random.default_rng(1))
    for row, index in enumerate((2, 0)):
        obj, cameras = draw(0, index), SPEC.cameras(index)
        exact = render(obj.mesh, cameras)
        for column, view in enumerate(views[row]):
            assert (batch.images[row, column] - exact.images[0, view]).abs().max() < 0.51 / 255
            torch.testing.assert_close(batch.cameras.c2w[row, column], cameras.c2w[0, view])
            torch.testing.assert_close(batch.cameras.K[row, column], cameras.K[0, view])
        assert any(phrase in batch.captions[row] for found in obj.phrases.values() for phrase in found)
    assert batch.cameras.shape == (2, 2) and batch.images.shape == (2, 2, 3, 32, 32)
    elevation = reader.batch([0, 1, 2], range(4), np.random.default_rng(0)).cameras.elevation
    assert elevation.min() >= -10.01 and elevation.max() <= 50.01


def test_a_stopped_cache_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    write(tmp_path / "whole", SPEC, 7, workers=1, progress=False)
    original, left = cache.render_scene, [5]

    def failing(job):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(job)

    monkeypatch.setattr(cache, "render_scene", failing)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "parts", SPEC, 7, workers=1, progress=False)
    assert len(ToyboxCache(tmp_path / "parts")) == 5
    rendered = []
    monkeypatch.setattr(cache, "render_scene", lambda job: (rendered.append(job[1]), original(job))[1])
    write(tmp_path / "parts", SPEC, 7, workers=1, progress=False)
    assert rendered == [5, 6]
    assert torch.equal(pictures(tmp_path / "parts", 7), pictures(tmp_path / "whole", 7))


def test_a_cache_grows(tmp_path):
    write(tmp_path, SPEC, 2, workers=1, progress=False)
    before = pictures(tmp_path, 2)
    write(tmp_path, SPEC, 6, workers=1, progress=False)
    assert len(ToyboxCache(tmp_path)) == 6
    assert torch.equal(pictures(tmp_path, 2), before)
    assert [scene["index"] for scene in ToyboxCache(tmp_path).scenes] == list(range(6))


def test_other_arguments_are_refused(tmp_path):
    write(tmp_path, SPEC, 1, workers=1, progress=False)
    with pytest.raises(UserError, match="size is 32, not 64"):
        write(tmp_path, dataclasses.replace(SPEC, size=64), 1, workers=1, progress=False)


def test_unfinished_shard_of_other_code_is_refused(tmp_path):
    write(tmp_path, SPEC, 4, workers=1, progress=False)
    write(tmp_path, SPEC, 5, workers=1, progress=False)
    note = tmp_path / "shard_00001" / "shard.json"
    for content in ('{"fingerprint": "other"}', '{"finger'):
        note.write_text(content)
        with pytest.raises(UserError, match="shard_00001 is unfinished and was begun by other code"):
            write(tmp_path, SPEC, 8, workers=1, progress=False)
    shutil.rmtree(tmp_path / "shard_00001")
    write(tmp_path, SPEC, 8, workers=1, progress=False)
    assert len(ToyboxCache(tmp_path)) == 8


def test_damage_is_named(tmp_path):
    with pytest.raises(UserError, match="no toybox cache"):
        ToyboxCache(tmp_path)
    write(tmp_path, SPEC, 1, workers=1, progress=False)
    (tmp_path / "shard_00001.tmp").mkdir()
    assert len(ToyboxCache(tmp_path)) == 1
    with (tmp_path / "shard_00000" / "rgba.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match="rgba.npy is missing or damaged"):
        ToyboxCache(tmp_path)
    (tmp_path / "shard_00000" / "done.npy").unlink()
    with pytest.raises(UserError, match="done.npy is missing or damaged"):
        write(tmp_path, SPEC, 1, workers=1, progress=False)


def test_command(tmp_path, capsys, monkeypatch):
    arguments = ["toybox", "--out", str(tmp_path), "--count", "1", "--size", "32", "--views", "2", "--workers", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 0
    monkeypatch.setattr("sys.argv", [*arguments[:-1], "1", "--split", "test"])
    assert main() == 2
    assert "split is train, not test" in capsys.readouterr().err
