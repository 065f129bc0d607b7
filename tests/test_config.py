import os
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from diffusion3d.config import check, check_targets, compose, hydra_app, load_config, resolved, save_config
from diffusion3d.errors import UserError
from diffusion3d.naming import run_name, slug, sweep_job_name
from diffusion3d.overrides import to_hydra
from test_overrides import PROMPTS

TOY = [f"hydra.searchpath=[{Path(__file__).parent / 'configs'}]", "task=toy"]


def composed(*typed):
    with hydra_app() as app:
        config = compose(app, to_hydra([*TOY, *typed]))
        check(app, config, config.hydra)
    return config


@pytest.mark.parametrize("prompt", PROMPTS)
def test_configs_survive_saving_and_loading(prompt, tmp_path):
    content = {"task": {"text": prompt, "list": [prompt, 1, 1.5e-7, None, True]}, "number": 3}
    save_config(content, tmp_path / "config.yaml")
    assert OmegaConf.to_container(load_config(tmp_path), resolve=True) == content


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["task.stepz=3"], r"no task.stepz in the config; did you mean task.steps"),
        (["steps=3"], r"did you mean task.steps"),
        (["tsk=toy"], r"did you mean task\?"),
        (["logger=wanbd"], r"logger=wanbd does not exist; choices of logger: none, tensorboard, trackio, wandb"),
        (["experiment=nope"], r"experiment=nope does not exist; choices of experiment: "),
        (["data=[1]"], r"data=\[1\] does not name one choice"),
        (["task.steps=(a"], r"cannot read 'task.steps=\(a'; if it is text, quote it twice"),
        (["task.steps=1,2"], r"task.steps=1,2"),
        (["seed=${nope:1}"], r"cannot resolve seed"),
        (["seed=${nowhere}"], r"cannot resolve seed"),
        (["paths.output=???"], r"paths.output must be given"),
        (["hydra.run.dri=x"], r"hydra.run.dri"),
        (["task.steps.x=3"], r"task.steps.x"),
        (["~task.nothing"], r"task.nothing"),
        (["~task.steps"], r"^~task.steps takes away what is needed; set it instead: task.steps="),
        (["~prior"], r"^~prior takes away what is needed"),
        (["device=null"], r"^device=null is not one of auto, cpu"),
        (["+seed=3"], r"seed"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(typed, message):
    with pytest.raises(UserError, match=message) as caught:
        composed(*typed)
    assert "\n" not in str(caught.value)


def test_terms_can_be_taken_away():
    assert "size" not in composed("~terms.size").terms


def test_a_search_path_that_is_not_there_is_refused():
    with hydra_app() as app, pytest.raises(UserError, match="/nowhere is not available"):
        compose(app, ["hydra.searchpath=[/nowhere]"])


def test_keys_and_types_of_experiments_are_checked(tmp_path):
    folder = tmp_path / "experiment"
    folder.mkdir()
    head = "# @package _global_\ndefaults:\n  - override /task: toy\n"
    for name, body in {"good": "steps: 7", "key": "stepz: 7", "type": "steps: many"}.items():
        (folder / f"{name}.yaml").write_text(f"{head}task:\n  {body}\n")
    path = f"hydra.searchpath=[{tmp_path},{Path(__file__).parent / 'configs'}]"

    def experiment(name):
        with hydra_app() as app:
            config = compose(app, [path, f"experiment={name}"])
            check(app, config, config.hydra)
        return config.task.steps

    assert experiment("good") == 7
    with pytest.raises(UserError, match=r"did you mean task.steps"):
        experiment("key")
    with pytest.raises(UserError, match="task.steps=many is text"):
        experiment("type")


def test_a_missing_capability_is_found_among_the_files(tmp_path):
    for group, name, content in [
        ("task", "needy", "_target_: x.Y\nuses: [prior]\nneeds: [psychic]\n"),
        ("prior", "medium", "provides: [psychic]\n"),
    ]:
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{name}.yaml").write_text(content)
    with hydra_app() as app:
        config = compose(app, [f"hydra.searchpath=[{tmp_path}]", "task=needy"])
        with pytest.raises(UserError, match="task=needy needs 'psychic', .*prior=ddpm.*these provide it: prior=medium"):
            check(app, config, config.hydra)


def test_secrets_of_the_environment_do_not_reach_the_config(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    config = composed("paths.output='x/${oc.env:HF_TOKEN}'")
    assert resolved(config)["paths"]["output"] == "x/***"
    assert os.environ["HF_TOKEN"] not in str(resolved(config))


@pytest.mark.parametrize(
    "content",
    [
        None,
        "a: [",
        "[1]",
        "a: 1",
        "task: {_target_: os.system}",
        "task: {_target_: diffusion3d.config.Path.write_text}",
        "task: {_target_: diffusion3d.tasks.facts.write_json}",
    ],
)
def test_foreign_run_directories_are_data(content, tmp_path):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match="run directory|damaged"):
        load_config(tmp_path)


def test_what_an_interpolation_hides_is_not_made(tmp_path):
    hidden = '${oc.decode:"{_target_: shutil.copyfile, src: a, dst: b}"}'
    (tmp_path / "config.yaml").write_text(f"task: {{_target_: diffusion3d.tasks.distill.Distill, steps: '{hidden}'}}")
    with pytest.raises(UserError, match="holds an interpolation"):
        load_config(tmp_path)
    with pytest.raises(UserError, match=r"run.trust=\[shutil\]"):
        check_targets(OmegaConf.load(tmp_path / "config.yaml"))


def test_an_interpolation_hides_no_callback():
    with hydra_app() as app:
        hidden = '${oc.decode:"{_target_: shutil.copyfile}"}'
        config = compose(app, [f"+hydra.callbacks.x='{hidden}'"])
        HydraConfig.instance().set_config(config)
        with pytest.raises(UserError, match=r"run.trust=\[shutil\]"):
            check_targets(config)


def test_trusted_modules_may_be_named(tmp_path):
    (tmp_path / "config.yaml").write_text("task: {_target_: mine.Task, x: {_target_: diffusion3d.guidance.sds.SDS}}")
    assert load_config(tmp_path, ["mine"]).task._target_ == "mine.Task"
    with pytest.raises(UserError, match=r"run.trust=\[mine\]"):
        load_config(tmp_path, ["min"])


def test_run_names_are_short_safe_and_distinct():
    choices = {"task": "a_rather_long_task_name", "representation": "gsplat_with_a_suffix", "guidance": "sds" * 9}
    names = set()
    for prompt in PROMPTS:
        config = {"prompt": prompt, "task": {"uses": ["representation", "guidance"]}, "paths": {"output": "x"}}
        name = run_name(config, choices)
        assert len(f"{name}-999".encode()) <= 80
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
        assert run_name(config | {"paths": {"output": "y"}, "tags": ["t"]}, choices) == name
        names.add(name)
    assert len(names) == len(PROMPTS)


def test_a_run_is_named_by_the_run_it_works_on(tmp_path):
    config = {"prompt": "", "task": {}, "run": {"source": str(tmp_path / "castle_gsplat")}}
    assert run_name(config, {"task": "render"}).startswith("castle-gsplat_render_")


def test_slug():
    assert slug("A château, (red)!") == "a-chateau-red"
    assert slug("../../x") == "x"
    assert slug("介绍") == ""


def test_sweep_job_names_are_short_and_distinct():
    jobs = [[f"prompt='{prompt}'", "guidance=sds"] for prompt in PROMPTS]
    names = {sweep_job_name(job) for job in jobs}
    assert len(names) == len(PROMPTS)
    assert max(len(name.encode()) for name in names) <= 76
