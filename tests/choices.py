"""Every choice of a config group, composed as the runner composes it, with networks and scenes small enough for tests."""

import os
from pathlib import Path

import torch
from omegaconf import DictConfig

from diffusion3d.camera_sampling import Orbit
from diffusion3d.cameras import Cameras
from diffusion3d.config import CONF_DIR, check, compose, hydra_app
from diffusion3d.overrides import to_hydra
from diffusion3d.tasks.build import build
from tiny_pipelines import folder

SIZE = 32
PRIOR = [
    "prior.weights=null",
    f"prior.image_size={SIZE}",
    "prior.network.patch=4",
    "prior.network.channels=[16,16,32]",
    "prior.network.blocks=[1,1,1]",
    "prior.network.attention=[2]",
    "prior.network.head=16",
    "prior.network.embedding=32",
    "prior.network.pose=true",
    "prior.network.code=16",
]
SCENE = ["representation.count=60", "representation.scale=0.15"]
CAMERA = [f"camera.size={SIZE}", "camera.views=2", "camera.turntable_frames=4"]
FIELD = ["representation.renderer.samples=24"]
OCCUPIED = [*FIELD, "representation.occupancy.size=16"]
FIELDS = {
    "nerf": [*OCCUPIED, "representation.encoding.levels=4", "representation.encoding.log2_entries=12"],
    "nerf_frequency": [*OCCUPIED, "representation.head.width=16", "representation.head.layers=2"],
    "triplane": [*OCCUPIED, "representation.encoding.size=16", "representation.encoding.features=4"],
    "voxels": [*OCCUPIED, "representation.encoding.size=16"],
    "voxels_factorised": [*OCCUPIED, "representation.encoding.size=16", "representation.encoding.components=4"],
    "ib_planes": [*FIELD, "representation.sources=3", "representation.size=16", "representation.features=4"],
}
EDITING = [f"run={Path(__file__).parent / 'guidance' / 'source_run'}", "guidance.source_prompt=a red car"]
DRAWN = ["guidance.sampler.steps=2", "guidance.views=2", "guidance.joint=1", "guidance.levels=[1.0,0.5]"]
TINY = {
    "prior": {"ddpm": PRIOR},
    "representation": {"gsplat": SCENE, **FIELDS},
    "camera": {"orbit": CAMERA},
    "guidance": {"dds": EDITING, "pds": EDITING, "reconstruct": DRAWN},
}
"""What makes a choice small; one that is not listed is tested as it ships."""
PIPELINES = {"stable_diffusion": "sd", "sdxl": "sdxl", "deepfloyd": "deepfloyd", "mvdream": "mvdream"}
"""Priors from pipelines, and the small pipeline that each is tested with."""
ADDED = os.environ.get("DIFFUSION3D_CONF")
"""A folder of configs from elsewhere, whose choices the common suites test beside the package's own."""


def choices(group: str) -> list[str]:
    folders = [CONF_DIR, *([Path(ADDED)] if ADDED else [])]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def composed(*typed: str) -> DictConfig:
    """The checked config that these overrides give, fp32 so that results can be compared."""
    added = [f"hydra.searchpath=[{ADDED}]"] if ADDED else []
    with hydra_app() as app:
        config = compose(app, to_hydra([*added, "logger=none", "precision=fp32", "prompt=a castle", *typed]))
        check(app, config, config.hydra)
    return config


def chosen(group: str, choice: str, *typed: str) -> DictConfig:
    """The node of one choice, made small."""
    return composed(f"{group}={choice}", *small(group, choice), *typed)[group]


def small(group: str, choice: str) -> list[str]:
    """The overrides that make a choice small."""
    if group == "prior" and choice in PIPELINES:
        return [f"prior.model={folder(PIPELINES[choice])}", f"prior.image_size={SIZE}", "prior.text_cache=null"]
    return TINY.get(group, {}).get(choice, [])


def make_prior(choice: str = "ddpm"):
    """A small prior whose zero-initialised layers are perturbed, so that every input has an effect."""
    torch.manual_seed(0)
    prior = build(chosen("prior", choice)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in prior.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return prior


def cameras(scenes: int = 1, views: int = 2, size: int = SIZE) -> Cameras:
    torch.manual_seed(2)
    return Orbit(size, views).sample(scenes)
