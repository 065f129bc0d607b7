import pytest

from diffusion3d.checks import check_capabilities, check_values
from diffusion3d.errors import UserError

DEFAULTS = {
    "device": "auto",
    "precision": "auto",
    "task": {
        "_target_": "a.B",
        "steps": 40,
        "lr": 0.1,
        "minutes": None,
        "flag": True,
        "sizes": [1, 2],
        "name": "x",
        "elevation": [0.0, 1.0],
        "betas": [0.9, 0.95],
        "batches": [{"scenes": 8, "views": 4}],
        "extra_null": None,
    },
    "terms": {"size": {"_target_": "t.Size", "weight": 0.5, "limit": 0.1}, "ramp": {"from": 0.0, "to": 1.0}},
    "open": {},
    "paths": {"output": "outputs"},
}


def changed(**values):
    """DEFAULTS with some values replaced; keys are dotted with double underscores."""
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in DEFAULTS.items()}
    config["terms"] = {name: dict(term) for name, term in DEFAULTS["terms"].items()}
    for dotted, value in values.items():
        node = config
        *path, last = dotted.split("__")
        for part in path:
            node = node[part]
        node[last] = value
    return config


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"task__steps": 3},
        {"task__lr": 1},
        {"task__minutes": 2},
        {"task__extra_null": "anything"},
        {"task__sizes": [3, 4, 5]},
        {"task__sizes": []},
        {"task__name": None},
        {"task__name": "1e3"},
        {"task__steps": "${seed}"},
        {"terms__size__weight": {"from": 0, "to": 1, "start": 0.5}},
        {"terms__ramp": 0.3},
        {"terms__ramp": {"from": 0, "to": 1, "end": 0.5}},
        {"terms__size": None},
        {"terms__new": {"_target_": "t.New", "anything": 1}},
        {"terms__size": {"_target_": "t.Other", "other": 1}},
        {"open": {"a": {"b": 1}}},
        {"device": "cuda", "precision": "bf16"},
    ],
)
def test_fitting_values_pass(good):
    check_values(DEFAULTS, changed(**good))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"task__steps": "abc"}, r"task.steps=abc is text; it must be an integer, such as 40"),
        ({"task__steps": 3.0}, r"task.steps=3.0 must be an integer: task.steps=3$"),
        ({"task__steps": 3.5}, r"task.steps=3.5 is a number; it must be an integer"),
        ({"task__steps": True}, r"task.steps=true is true or false"),
        ({"task__steps": None}, r"task.steps=null is null"),
        ({"task__lr": "fast"}, r"task.lr=fast is text; it must be a number"),
        ({"task__flag": 1}, r"task.flag=1 is an integer; it must be true or false"),
        ({"task__sizes": 3}, r"task.sizes=3 is an integer; it must be a list"),
        ({"task__sizes": [1, "b"]}, r"task.sizes\[1\]=b is text"),
        ({"task__name": 5}, r"task.name=5 is an integer; it must be text"),
        ({"task": 5}, r"task=5 is an integer; it must be a mapping"),
        ({"terms__size__weight": {"from": 0, "until": 1}}, r"terms.size.weight=\{from, until\} is a mapping"),
        ({"terms__size__weight": {"from": "a", "to": 1.0}}, r"terms.size.weight=\{from, to\} is a mapping"),
        ({"task__stepz": 3}, r"there is no task.stepz in the config; did you mean task.steps"),
        ({"terms__sise": {"weight": 1}}, r"there is no terms.sise in the config; did you mean terms.size"),
        ({"steps": 3}, r"did you mean task.steps"),
        ({"device": "tpu"}, r"device=tpu is not one of auto, cpu, cuda, mps"),
        ({"task__steps": -1}, r"task.steps=-1 must be a number, at least 1"),
        ({"task__minutes": "many"}, r"task.minutes=many must be a number, at least 0"),
        ({"task__elevation": [1.0]}, r"task.elevation=\[1.0\] must be a list of 2 numbers"),
        ({"task__minutes": [1, 2]}, r"task.minutes=\[1, 2\] must be one number, at least 0"),
        ({"task__lr": -1.0}, r"task.lr=-1.0 must be a number, at least 0"),
        ({"task__lr": float("nan")}, r"task.lr=nan must be a number, at least 0"),
        ({"task__lr": {"from": 1.0, "to": -0.1}}, r"task.lr=-0.1 must be a number, at least 0"),
        ({"task__betas": [0.9, 2.0]}, r"task.betas=2.0 must be a number, in 0 ... 0.999999"),
        ({"task__batches": []}, r"task.batches=\[\] is empty"),
        (
            {"task__batches": [{"scenes": 1, "views": 2}, {"scenes": 0}]},
            r"task.batches.scenes=0 must be a number, at least 1",
        ),
        ({"terms__size__weight": float("nan")}, r"terms.size.weight=nan is not a number"),
        ({"terms__ramp": {"from": 0.0, "to": float("nan")}}, r"terms.ramp.to=nan is not a number"),
        ({"open": {"list": [1.0, {"a": float("nan")}]}}, r"open.list.a=nan is not a number"),
        ({"terms__size__limit": -0.5}, r"terms.size.limit=-0.5 must be a number, at least 0"),
        ({"paths__output": None}, r"paths.output=null is no folder; leave it out for outputs"),
        ({"precision": "fp8"}, r"precision=fp8 is not one of auto, fp32, bf16"),
    ],
)
def test_others_are_refused_in_one_line(bad, message):
    with pytest.raises(UserError, match=message) as caught:
        check_values(DEFAULTS, changed(**bad))
    assert "\n" not in str(caught.value)


def test_keys_added_on_purpose_pass():
    check_values(DEFAULTS, changed(task__extra=1), added=["task.extra"])


CONFIG = {
    "prompt": "castle",
    "run": {"source": None},
    "task": {"uses": ["prior", "guidance"], "needs": [], "provides": []},
    "prior": {"provides": ["text", "camera"]},
    "guidance": {"needs": ["text", "prompt"]},
    "data": {"needs": ["nothing that exists"]},
}
CHOICES = {"task": "distill", "prior": "ddpm", "guidance": "sds", "data": "toybox"}


def providers(need, groups):
    return [f"prior={need}_prior" for group in groups if group == "prior" and need != "magic"]


def test_groups_that_a_task_does_not_use_need_nothing():
    check_capabilities(CONFIG, CHOICES, providers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"prior": {"provides": ["camera"]}},
            r"guidance=sds needs 'text', which task=distill, prior=ddpm do not provide; these provide it: prior=text_prior",
        ),
        ({"guidance": {"needs": ["magic"]}}, r"guidance=sds needs 'magic'.*no choice provides it"),
        ({"guidance": {"needs": ["run"]}}, r"guidance=sds needs a finished run: add run=DIR"),
        ({"prompt": " \n"}, r'guidance=sds needs a prompt and it is empty; give one, such as prompt="a castle"'),
    ],
)
def test_missing_capabilities_are_named_with_what_would_provide_them(change, message):
    with pytest.raises(UserError, match=message):
        check_capabilities(CONFIG | change, CHOICES, providers)
