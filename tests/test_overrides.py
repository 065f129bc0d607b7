import re

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from diffusion3d.errors import UserError
from diffusion3d.overrides import load_overrides, resumed, save_overrides, split_prompts, swept_keys, to_hydra

LISTED = [
    "a corgi, standing",
    "a (red) castle",
    "it's a castle",
    "château",
    "介绍",
    "a=b!",
    '[x] & "y"; null',
    "1e3",
    "../../x",
    "",
    "x" * 10_000,
]
PROMPTS = [
    *LISTED,
    "null",
    "true",
    "${oc.env:HOME}",
    r"\${a} \\${b} \\ ' \' \\' '",
    "trailing \\",
    "two\nlines\t\r and \x85 and \u2028",
    " blanks around ",
    "'quoted'",
    '"quoted"',
    "choice(a,b)",
    "~x +y ++z @w",
    "🏰",
    "-5",
]


def value_in_config(overrides: list[str], key: str = "prompt") -> object:
    """What Hydra puts into a config for one override, and what a reader of the config gets."""
    [parsed] = OverridesParser.create().parse_overrides(overrides)
    assert not parsed.is_sweep_override()
    config = OmegaConf.create({key: ""})
    OmegaConf.update(config, key, parsed.value())
    return OmegaConf.select(config, key)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompt_is_literal(prompt):
    assert value_in_config(to_hydra([f"prompt={prompt}"])) == prompt


@given(st.text(st.sampled_from("ab \\$\\{\\}'\",=()[]:é\n"), max_size=30) | st.text(max_size=30))
def test_any_prompt_is_literal(prompt):
    try:
        prompt.encode()
    except UnicodeEncodeError:
        with pytest.raises(UserError, match="UTF-8"):
            to_hydra([f"prompt={prompt}"])
    else:
        assert value_in_config(to_hydra([f"prompt={prompt}"])) == prompt


def test_in_a_multirun_commas_separate_and_quotes_protect():
    typed = """prompt=castle, race car,"a corgi, standing",it's,'x "y", z',château,1e3,"""
    [override] = to_hydra([typed], multirun=True)
    [parsed] = OverridesParser.create().parse_overrides([override])
    assert parsed.is_sweep_override()
    jobs = [value_in_config([f"prompt={text}"]) for text in parsed.sweep_string_iterator()]
    assert jobs == ["castle", "race car", "a corgi, standing", "it's", 'x "y", z', "château", "1e3", ""]


@pytest.mark.parametrize("text", ["", ",", "a", "'a", "a'", "'a'b, c", "'a,b", '"a\',b"', "a\n,b\n"])
def test_split_prompts_loses_nothing(text):
    kept = "".join(split_prompts(text))
    assert re.sub(r"[\s,'\"]", "", kept) == re.sub(r"[\s,'\"]", "", text)


def test_swept_keys():
    overrides = to_hydra(["prompt=a,b", "task.steps=1,2", "seed=3", "task=toy"], multirun=True)
    assert swept_keys(overrides) == ["prompt", "task.steps"]


@pytest.mark.parametrize("name", ["plain", "with (odd), name's = é", "${oc.env:HOME}", "null "])
def test_run_is_a_path_of_any_characters(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [override] = to_hydra([f"run={name}"])
    assert override.startswith("run.source=")
    assert value_in_config([override], "run.source") == str(tmp_path / name)


def test_run_may_be_null():
    assert to_hydra(["run=null"]) == ["run.source=null"]


@pytest.mark.parametrize("typed", ["castle", "--", "prompt:castle", "=", "@x=1"])
def test_arguments_that_are_no_overrides_are_refused(typed):
    with pytest.raises(UserError, match="key=value"):
        to_hydra([typed])


def test_resumed_repeats_the_run_and_takes_what_cannot_change_it(tmp_path):
    started = to_hydra(["task=toy", "prompt=it's ${x}", "logger=wandb", "hydra.searchpath=[a]", "hydra.run.dir=x"])
    save_overrides([*started, "run.resume='/old'"], tmp_path / "overrides.yaml")
    assert load_overrides(tmp_path) == started[:-1]
    again = resumed(tmp_path, ["logger=none", "task.steps=9", "task.video_size=64"])
    kept = [*started[:2], started[3], "run.trust=[]", "viewer.enabled=false", "viewer.host=127.0.0.1"]
    assert again == [*kept, "logger=none", "task.steps=9", "task.video_size=64", f"hydra.run.dir='{tmp_path}'"]


def test_resumed_takes_trust_and_viewers_from_what_is_typed_alone(tmp_path):
    hostile = [
        "run.trust=[evil]",
        "run={trust:[evil]}",
        "viewer.host=0.0.0.0",
        "viewer={enabled:true}",
        "~run",
        "~viewer",
    ]
    (tmp_path / "overrides.yaml").write_text(yaml.safe_dump(["task=toy", *hostile, "hydra={mode:MULTIRUN}"]))
    place = f"hydra.run.dir='{tmp_path}'"
    unless_typed = ["run.trust=[]", "viewer.enabled=false", "viewer.host=127.0.0.1"]
    assert resumed(tmp_path, []) == ["task=toy", *unless_typed, place]
    typed = ["run.trust=[mine]", "viewer.enabled=true"]
    assert resumed(tmp_path, typed) == ["task=toy", unless_typed[2], *typed, place]
    save_overrides(["task=toy", *typed, "run.source='/x'"], tmp_path / "overrides.yaml")
    assert load_overrides(tmp_path) == ["task=toy", "run.source='/x'"]


@pytest.mark.parametrize("place", ["pkg://evil", "structured://evil", "'${oc.decode:x}'", "a,pkg://evil"])
def test_resumed_looks_into_folders_alone_unless_more_is_typed(place, tmp_path):
    path = f"hydra.searchpath=[{place}]"
    save_overrides([path], tmp_path / "overrides.yaml")
    with pytest.raises(UserError, match=f"if you trust it, add {re.escape(path)}$"):
        resumed(tmp_path, [])
    assert path in resumed(tmp_path, [path])
    save_overrides(["hydra.searchpath=[a,file:///b]"], tmp_path / "overrides.yaml")
    assert "hydra.searchpath=[a,file:///b]" in resumed(tmp_path, [])


@pytest.mark.parametrize("multirun", [False, True])
def test_secrets_are_refused_in_overrides(multirun, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    with pytest.raises(UserError, match=r"holds the value of HF_TOKEN.*type '\$\{oc.env:HF_TOKEN\}'") as caught:
        to_hydra(["seed=1", "prior.model=https://x:hf_verysecret@y"], multirun)
    assert "verysecret" not in str(caught.value)
    assert to_hydra(["prior.model=${oc.env:HF_TOKEN}"], multirun) == ["prior.model=${oc.env:HF_TOKEN}"]


@pytest.mark.parametrize("typed", ["prompt='x'", "task=other", "task.lr=1", "seed=2", "~terms.size", "+task.x=1"])
def test_resumed_refuses_what_would_change_the_result(typed, tmp_path):
    save_overrides(["task=toy"], tmp_path / "overrides.yaml")
    with pytest.raises(UserError, match="cannot be changed"):
        resumed(tmp_path, [typed])


@pytest.mark.parametrize("content", [None, "", "{a: 1}", "[1, 2]", "[a", "\x00", "[a]", "['a=[']"])
def test_directories_without_overrides_are_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "overrides.yaml").write_text(content)
    with pytest.raises(UserError, match="not a run directory|damaged"):
        load_overrides(tmp_path)


def test_saved_overrides_are_plain_yaml(tmp_path):
    save_overrides(["prompt='1e3'", "a=\\${b}"], tmp_path / "overrides.yaml")
    assert yaml.safe_load((tmp_path / "overrides.yaml").read_text()) == ["prompt='1e3'", "a=\\${b}"]


def test_short_keys():
    typed = ["viewer=true", "viewer.port=1", "run=/a b"]
    assert to_hydra(typed) == ["viewer.enabled=true", "viewer.port=1", "run.source='/a b'"]
