"""What TensorBoard is told, read back by TensorBoard's own reader."""

from pathlib import Path

import pytest
from PIL import Image

import diffusion3d
from diffusion3d.loggers.base import RunInfo
from diffusion3d.loggers.tensorboard import TensorBoardLogger

CONFIGS = Path(__file__).parent.parent / "configs"
accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(directory):
    found = accumulator.EventAccumulator(str(directory / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def test_event_files_hold_everything(tmp_path):
    picture = Image.new("RGB", (6, 4), "red")
    picture.save(tmp_path / "grid.png")
    picture.save(tmp_path / "rgb.gif", save_all=True, append_images=[Image.new("RGB", (6, 4))])
    swept = {"guidance": "vsd", "task.steps": 6, "x": None}
    for steps in (range(4), range(2, 6)):  # resumed at 2
        logger = TensorBoardLogger()
        logger.start(RunInfo("abc", tmp_path, {}, "distill", "sweep", [], swept))
        if steps[0]:
            logger.resume(steps[0])
        for step in steps:
            logger.log(step, {"loss": step / 2 + steps[0]})
        logger.image(steps[-1], "grid", tmp_path / "grid.png")
        logger.image(None, "contact_sheet", tmp_path / "grid.png")
        logger.video("rgb", tmp_path / "rgb.mp4")
        logger.video("depth", tmp_path / "depth.mp4")
        logger.finish({"norm": 2.5})
    found = read(tmp_path)
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [
        *[(0, 0.0), (1, 0.5)],
        *[(2, 3.0), (3, 3.5), (4, 4.0), (5, 4.5)],
    ]
    assert found.Scalars("final/norm")[-1].value == 2.5
    assert {*found.Tags()["images"]} == {"grid", "contact_sheet", "rgb"}
    for name, file in {"grid": "grid.png", "rgb": "rgb.gif"}.items():
        event = found.Images(name)[-1]
        assert (event.width, event.height, event.encoded_image_string) == (6, 4, (tmp_path / file).read_bytes())
    from tensorboard.plugins.hparams import plugin_data_pb2

    start = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    content = plugin_data_pb2.HParamsPluginData.FromString(start).session_start_info.hparams
    assert (content["guidance"].string_value, content["task.steps"].number_value) == ("vsd", 6)


def test_nothing_of_a_fresh_run_is_void_and_a_resumed_one_without_steps_ends_where_it_was(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "grid.png")
    for first in (0, 3):
        logger = TensorBoardLogger()
        logger.start(RunInfo("abc", tmp_path, {}, "distill"))
        if first:
            logger.resume(first)
        for step in range(first, 3):
            logger.log(step, {"loss": 1.0})
            logger.image(step + 1, "grid", tmp_path / "grid.png")
        logger.finish({"norm": 2.5})
    found = read(tmp_path)
    assert [event.step for event in found.Images("grid")][:2] == [1, 2]
    assert [event.step for event in found.Scalars("final/norm")] == [2, 2]


def test_a_run_logs_what_its_csv_holds(tmp_path):
    typed = [f"hydra.searchpath=[{CONFIGS}]", "task=toy", "logger=tensorboard", f"hydra.run.dir={tmp_path / 'run'}"]
    final = diffusion3d.run([*typed, "task.steps=3", "logger.tensorboard.finish_seconds=60"])
    found = read(tmp_path / "run")
    assert [event.step for event in found.Scalars("loss")] == [0, 1, 2]
    assert found.Scalars("final/norm")[0].value == pytest.approx(final["norm"])
