"""What a run would do, in words: `run.dry_run=true`. Imports no torch and writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from diffusion3d.config import resolved

WEIGHTS = Path(__file__).resolve().parent / "priors" / "weights"


def show_plan(config: DictConfig, hydra: DictConfig, directory: Path) -> None:
    """Print a composed and checked config, then what it would do where.

    Args:
        config: composed and checked.
        hydra: its `hydra` node.
        directory: of the run.
    """
    content = resolved(config)
    shown = {key: content[key] for key in _used(content)}
    print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=10**6))
    print("\n".join(plan(content, hydra, directory)))


def plan(content: dict[str, Any], hydra: DictConfig, directory: Path) -> list[str]:
    """The lines of a plan."""
    task, choices = content["task"], hydra.runtime.choices
    lines = [f"would run task={choices.get('task')} in {directory}"]
    for group in ["task", *task.get("uses", [])]:
        if choices.get(group) is not None:
            lines.append(f"  {group}={choices[group]}: {_first_comment(hydra, group, choices[group])}")
    if "prior" in task.get("uses", []):
        lines.append(f"  prior weights: {_weights(content['prior'])}")
    if content["run"]["source"] is not None:
        lines.append(f"  works on {content['run']['source']}")
    if "steps" in task:
        limit = f" or {task['minutes']} minutes" if task.get("minutes") is not None else ""
        every = [f"{key.removesuffix('_every')} every {task[key]}" for key in task if key.endswith("_every")]
        lines.append(f"  steps: {task['steps']}{limit}; {', '.join(every)}")
    lines.append(f"  loggers: {', '.join(['metrics.csv', *content['logger']])}")
    lines.append(f"  state: {_state(directory)}")
    return lines


def _used(content: dict[str, Any]) -> list[str]:
    """Its keys without the groups that the task does not use."""
    used = {"task", *content["task"].get("uses", [])}
    return [key for key, node in content.items() if key in used or not (isinstance(node, dict) and "provides" in node)]


def _first_comment(hydra: DictConfig, group: str, choice: str) -> str:
    """What the choice's file says of itself in its first line."""
    roots = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    for path in (root / group / f"{choice}.yaml" for root in roots):
        if path.exists():
            comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
            return next((line[2:] for line in comments if not line.startswith("# @package")), "")
    return ""


def _weights(prior: dict[str, Any]) -> str:
    if "model" in prior:
        folder = Path(prior["model"]).expanduser()
        return f"{folder}, a folder" if folder.is_dir() else f"{prior['model']}, from the hub or its cache"
    named = prior.get("weights")
    if named is None:
        return "none, it starts from scratch"
    for path in (Path(named).expanduser(), WEIGHTS / named):
        if path.exists():
            return f"{path} ({path.stat().st_size / 2**20:.1f} MiB)"
    return f"{named}, which is not there"


def _state(directory: Path) -> str:
    if (directory / "metrics.json").exists():
        return "done before"
    steps = sorted((directory / "checkpoints").glob("step_*.safetensors"))
    if steps:
        return f"begun before; its last checkpoint is {steps[-1].stem}"
    return "begun before" if (directory / "config.yaml").exists() else "new"
