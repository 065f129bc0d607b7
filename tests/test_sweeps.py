"""Sweeps: every job once, whatever happens to some; in one process, in several, on clusters; grids and searches."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from diffusion3d import sweeps
from diffusion3d.errors import HINT, Interrupted, RunError, UserError
from diffusion3d.hydra_cli import sweep
from diffusion3d.run import job
from diffusion3d.sweeps import Outcome, read_jobs, write_table
from diffusion3d.tasks import run_dir
from diffusion3d.tasks.facts import peak_memory

TESTS = Path(__file__).parent
TOY = [f"hydra.searchpath=[{TESTS / 'configs'}]", "task=toy", "logger=none"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    "OMP_WAIT_POLICY": "PASSIVE",
}


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])


def table(directory="sweep"):
    with Path(directory, "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def stamps(directory="sweep"):
    return {path: path.stat().st_mtime_ns for path in Path(directory).glob("*/metrics.json")}


def test_one_that_fails_does_not_stop_the_rest_and_a_repetition_runs_what_is_not_done(tmp_path, caplog):
    typed = [*TOY, "prompt=castle,'a corgi, standing'", "task.steps=3,4", "task.nan_at=null,2", "seed=1"]
    with pytest.raises(RunError, match="^4 of 8 jobs failed$"):
        sweep(typed, job)
    [directory] = Path("outputs").iterdir()
    rows = table(directory)
    assert list(rows[0]) == [
        *["job", "status", "prompt", "task.steps", "task.nan_at", "fit", "loss", "norm"],
        *["seconds", "peak_memory_mb", "error"],
    ]
    assert [(row["prompt"], row["task.steps"], row["task.nan_at"]) for row in rows] == [
        (prompt, steps, nan) for prompt in ("castle", "a corgi, standing") for steps in "34" for nan in ("", "2")
    ]
    for row in rows:
        failed = row["task.nan_at"] == "2"
        assert row["status"] == ("failed" if failed else "done")
        assert ("is nan at step 2" in row["error"]) == failed
        assert bool(row["norm"] and row["seconds"] and row["peak_memory_mb"]) != failed
        assert (f"failed: {row['job']}: " in caplog.text) == failed
    before = stamps(directory)
    caplog.clear()
    with pytest.raises(RunError, match="^4 of 8 jobs failed$"):
        sweep([*typed[3:], *typed[:2], "logger=none", "hydra/launcher=basic"], job)
    assert stamps(directory) == before
    assert [entry.name for entry in Path("outputs").iterdir()] == [directory.name], "order and launcher name no sweep"
    assert caplog.text.count("done before: ") == 4 and caplog.text.count("writing to ") == 4
    assert "4 done, 4 failed in " in caplog.text


def test_a_killed_sweep_goes_on_where_it_was_and_ends_with_the_same_bits(tmp_path):
    typed = [*TOY, "task.steps=60", "seed=1,2,3", "task.checkpoint_every=5", "hydra.sweep.dir=sweep"]
    command = [sys.executable, "-m", "diffusion3d.run", "-m", *typed, "task.sleep=0.02"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not list(Path("sweep").glob("seed-2_*/checkpoints/step_00000020*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [(row["seed"], row["status"]) for row in table()] == [("1", "done"), ("2", "cut")]
    before = stamps()
    sweep([*typed, "task.sleep=0.02"], job)
    assert [(row["seed"], row["status"]) for row in table()] == [("1", "done"), ("2", "done"), ("3", "done")]
    assert before.items() <= stamps().items()
    [cut] = Path("sweep").glob("seed-2_*")
    assert "continuing at step " in (cut / "run.log").read_text()
    assert [row.split(",")[0] for row in (cut / "metrics.csv").read_text().splitlines()[1:]] == [*map(str, range(60))]
    seconds = json.loads((cut / "metrics.json").read_text())["seconds"]
    assert seconds > 60 * 0.02, "the time before the kill counts"
    sweep([*[o for o in typed if not o.startswith(("seed", "hydra.sweep"))], "seed=2,4", "hydra.sweep.dir=whole"], job)
    [whole] = Path("whole").glob("seed-2_*")
    name = "checkpoints/step_00000060.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_a_job_with_another_config_gets_a_directory_of_its_own():
    for steps in (2, 3, 2):
        sweep([*TOY, f"task.steps={steps}", "task.nan_at=null,9", "hydra.sweep.dir=sweep"], job)
    assert sum(row["job"].endswith("-2") for row in table()) == 2
    assert [row["status"] for row in table()] == ["done"] * 4


def test_a_job_that_is_refused_is_in_the_table(tmp_path):
    with pytest.raises(RunError, match="^1 of 2 jobs failed$"):
        sweep([*TOY[:1], "logger=none", "task=toy,distill", "prompt=", "task.steps=2", "hydra.sweep.dir=sweep"], job)
    assert [(row["task"], row["status"]) for row in table()] == [("toy", "done"), ("distill", "failed")]
    assert "needs a prompt and it is empty" in table()[1]["error"]


def test_a_signal_stops_a_sweep_and_its_table_says_so(monkeypatch):
    def stopped(config):
        if config.seed == 2:
            raise Interrupted("stopped at step 3 of 9", signal.SIGINT)
        return job(config)

    with pytest.raises(Interrupted, match="stopped at step 3 of 9"):
        sweep([*TOY, "task.steps=2", "seed=1,2,3", "hydra.sweep.dir=sweep"], stopped)
    assert [(row["seed"], row["status"]) for row in table()] == [("1", "done")]


def test_tables_hold_what_there_is(tmp_path):
    assert write_table(tmp_path) == []
    for name, files in {
        "a": {"job.json": {"number": 1, "swept": {"x": 1}, "error": ""}, "metrics.json": {"loss": 2.0}},
        "b": {"job.json": {"number": 0, "swept": {"y": "b, c"}, "error": "bad\tluck"}},
        "c": {"metrics.json": {"loss": 3.0}},
    }.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(json.dumps(content))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "job.json").write_text("{torn")
    assert [(found.directory.name, found.status) for found in read_jobs(tmp_path)] == [("b", "failed"), ("a", "done")]
    write_table(tmp_path)
    assert table(tmp_path)[0] | {"job": ""} == {
        **dict.fromkeys(["job", "x", "loss", "seconds", "peak_memory_mb"], ""),
        **{"status": "failed", "y": "b, c", "error": "bad\tluck"},
    }


def test_a_job_that_another_process_works_on_is_left_to_it(tmp_path, caplog):
    typed = [*TOY, "task.steps=2", "seed=1,2", "hydra.sweep.dir=sweep"]
    sweep(typed, job)
    [theirs] = Path("sweep").glob("seed-1_*")
    (theirs / "metrics.json").unlink()
    before = (theirs / "job.json").stat().st_mtime_ns
    with FileLock(theirs / ".lock"):
        sweep(typed, job)
    assert f"{theirs.absolute()} is being written by another process" in caplog.text
    assert (theirs / "job.json").stat().st_mtime_ns == before
    assert [row["status"] for row in table()] == ["cut", "done"]


def test_a_job_that_another_process_has_just_finished_is_not_done_again(tmp_path, monkeypatch, caplog):
    typed = [*TOY, "task.steps=2", "seed=1", "task.sleep=0,0.001", "hydra.sweep.dir=sweep"]
    sweep(typed, job)
    finished = {path: path.read_bytes() for path in Path("sweep").absolute().glob("*/metrics.json")}
    for path in finished:
        path.unlink()

    @contextmanager
    def lock(directory):
        (directory / "metrics.json").write_bytes(finished[directory / "metrics.json"])  # the other ends here
        with run_dir.lock(directory):
            yield

    monkeypatch.setattr(sweeps, "lock", lock)
    caplog.clear()
    sweep(typed, job)
    assert caplog.text.count("done before: ") == 2
    assert {path: path.read_bytes() for path in finished} == finished


def test_a_table_that_cannot_be_written_hides_no_failure(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sweeps, "LOCK_SECONDS", 0.01)
    typed = [*TOY, "task.steps=2", "hydra.sweep.dir=sweep"]
    Path("sweep").mkdir()
    with FileLock("sweep/.lock"):
        with pytest.raises(RunError, match="^1 of 2 jobs failed$"):
            sweep([*typed, "task.nan_at=null,1"], job)
        assert "is nan at step 1" in caplog.text and "sweep.csv: other processes keep it locked" in caplog.text
        with pytest.raises(
            RunError, match="cannot write .*sweep.csv: other processes keep it locked; the same command"
        ):
            sweep([*typed, "task.nan_at=null,null"], job)


def test_secrets_do_not_reach_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "verysecret")
    sweep([*TOY, "task.steps=2", "paths.output=x,${oc.env:MY_TOKEN}", "hydra.sweep.dir=sweep"], job)
    assert [row["paths.output"] for row in table()] == ["x", "***"]
    assert not [path for path in Path("sweep").rglob("*") if path.is_file() and b"verysecret" in path.read_bytes()]


def test_an_outcome_is_a_number_for_a_search():
    assert float(Outcome({"loss": 2}, score="loss")) == 2
    for bad in (Outcome({"loss": 2}, score="los"), Outcome({"loss": float("nan")}, score="loss"), Outcome({}, None)):
        with pytest.raises(UserError, match="task.score="):
            float(bad)
    with pytest.raises(RunError, match="loss is nan"):
        float(Outcome(error=RunError("loss is nan")))


def test_what_stops_a_job_reaches_the_process_that_started_it():
    stop = pickle.loads(pickle.dumps(Interrupted("stopped at step 3", signal.SIGTERM)))
    assert (str(stop), stop.exit_code) == ("stopped at step 3", 143)


def test_peak_memory_is_of_one_job(tmp_path):
    sweep([*TOY, "task.steps=2", "seed=1", "hydra.sweep.dir=small"], job)
    before = float(table("small")[0]["peak_memory_mb"])
    ballast = bytearray(os.urandom(2**20)) * 300
    assert peak_memory()["peak_memory_mb"] > before + 250
    del ballast
    sweep([*TOY, "task.steps=2", "seed=1", "hydra.sweep.dir=again"], job)
    assert float(table("again")[0]["peak_memory_mb"]) < before + 150


@pytest.mark.slow
def test_jobs_run_side_by_side_and_share_the_cores(monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    typed = [*TOY, "hydra/launcher=parallel", "hydra.launcher.n_jobs=2", "task.meet=2", "task.steps=8"]
    with pytest.raises(RunError, match="^1 of 2 jobs failed$"):
        sweep([*typed, "task.fail=null,oh no", "hydra.sweep.dir=sweep"], job)
    assert [(row["status"], row["error"]) for row in table()] == [
        ("done", ""),
        ("failed", f"RuntimeError: oh no{HINT}"),
    ]
    for path in Path("sweep").glob("*/versions.json"):
        assert json.loads(path.read_text())["threads"] == max(1, os.cpu_count() // 2)


@pytest.mark.slow
def test_a_search_minimises_the_score_and_goes_on_when_repeated(caplog):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    typed = [*TOY, "hydra/sweeper=search", "hydra.sweeper.n_trials=4", "task.steps=int(interval(1,30))"]
    typed += ["prompt='a', b", "task.nan_at=15", "hydra.sweep.dir=sweep"]
    with pytest.raises(RunError, match="jobs failed"):
        sweep(typed, job)
    before, rows = stamps(), table()
    assert {row["status"] for row in rows} == {"done", "failed"}
    best = OmegaConf.load("sweep/optimization_results.yaml")
    assert best.best_value == min(float(row["norm"]) for row in rows if row["norm"])
    assert {row["prompt"] for row in rows} <= {"a", "b"}
    assert f"task.score=norm is {best.best_value}: " in caplog.text
    with pytest.raises(RunError, match="jobs failed"):
        sweep(typed, job)
    assert (stamps(), len(table())) == (before, len(rows)), "the same seed asks for the same jobs, and they are done"


def test_searches_need_a_score_and_cannot_be_planned():
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    with pytest.raises(UserError, match="task=sample has no score to search by"):
        sweep(["task=sample", "hydra/sweeper=search", "prompt=a", "seed=1,2"], job)
    with pytest.raises(UserError, match=r"nothing to search: .*interval"):
        sweep([*TOY, "hydra/sweeper=search", "seed=1"], job)
    with pytest.raises(UserError, match=r"interval.* is a range that a search draws from: add hydra/sweeper=search"):
        sweep([*TOY, "task.steps=interval(1,2)", "seed=1"], job)
    assert not list(Path().rglob("sweep.csv"))
    with pytest.raises(UserError, match="a search chooses its jobs as it goes"):
        sweep([*TOY, "hydra/sweeper=search", "seed=1,2", "run.dry_run=true"], job)


SBATCH = """#!/bin/sh
for script; do :; done
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for task in $(seq 0 "$last"); do
    SLURM_JOB_ID=7$task SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$((last + 1)) \\
        SLURM_JOB_NODELIST=localhost setsid sh "$script" >"$script.$task.log" 2>&1 </dev/null &
done
echo Submitted batch job 7
"""
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do case "$1" in --output|--error) shift;; esac; shift; done
exec env SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NNODES=1 "$@"
"""
SACCT = """#!/bin/sh
printf 'JobID|State|NodeList\\n7|RUNNING|localhost\\n7_0|RUNNING|localhost\\n7_1|RUNNING|localhost\\n'
"""


@pytest.mark.slow
def test_slurm_gets_the_jobs(tmp_path, monkeypatch):
    """With programs in the place of Slurm's that run what they get on this machine."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (tmp_path / "bin").mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    sweep([*TOY, "hydra/launcher=slurm", "task.steps=3", "seed=1,2", "hydra.sweep.dir=sweep"], job)
    assert [(row["seed"], row["status"]) for row in table()] == [("1", "done"), ("2", "done")]
    [script] = Path("sweep", ".submitit").rglob("*_submission.sh")
    assert {"#SBATCH --cpus-per-task=4", "#SBATCH --mem=8GB", "#SBATCH --time=240"} <= {
        *script.read_text().splitlines()
    }


@pytest.mark.ray
def test_a_ray_cluster_of_two_workers_gets_the_jobs(tmp_path):
    ray = pytest.importorskip("ray")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        typed = [
            *TOY,
            "hydra/launcher=ray_cluster",
            f"hydra.launcher.ray.init.address='{cluster.address}'",
            "task.meet=2",
        ]
        sweep([*typed, "task.steps=3", "seed=1,2", "hydra.sweep.dir=sweep"], job)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert [(row["seed"], row["status"]) for row in table()] == [("1", "done"), ("2", "done")]
    assert {json.loads(path.read_text())["threads"] for path in Path("sweep").glob("*/versions.json")} == {1}


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        (["hydra/launcher=parallel"], "joblib is not installed: pip install 'diffusion3d\\[sweeps\\]'"),
        (["hydra/launcher=ray_cluster"], "ray is not installed: pip install 'diffusion3d\\[ray\\]'"),
        (["hydra/launcher=jobli"], "hydra/launcher=jobli does not exist; choices: basic, .*diffusion3d\\[sweeps\\]"),
    ],
)
def test_what_is_not_installed_is_said_with_how_to_get_it(typed, advice, monkeypatch):
    for name in ("joblib", "ray"):
        monkeypatch.setitem(sys.modules, f"hydra_plugins.hydra_{name}_launcher.{name}_launcher", None)
    with pytest.raises(UserError, match=advice) as caught:
        sweep([*TOY, *typed, "seed=1,2"], job)
    assert "\n" not in str(caught.value)
