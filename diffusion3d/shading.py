"""How a run's views are lit while it optimises."""

from __future__ import annotations

import torch

from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Scheduled, Step


class Shadings:
    """Draws a shading for every step, in proportion to weights that are numbers or schedules (Poole et al. 2023, section 3.2).

    Args:
        albedo: colours as they are.
        lambertian: lit colours.
        textureless: light on white.
        normal: normals as colours.
    """

    def __init__(
        self,
        albedo: Scheduled = 1.0,
        lambertian: Scheduled = 0.0,
        textureless: Scheduled = 0.0,
        normal: Scheduled = 0.0,
    ) -> None:
        self.weights = {"albedo": albedo, "lambertian": lambertian, "textureless": textureless, "normal": normal}

    @property
    def lit(self) -> bool:
        """Whether any step may need normals."""
        return any(weight != 0 for name, weight in self.weights.items() if name != "albedo")

    def sample(self, step: Step) -> str | None:
        """The shading of a step, drawn from torch's global generator where there is a choice; None for albedo.

        Raises:
            UserError: negative weights, or all are 0.
        """
        values = torch.tensor([step.value(weight) for weight in self.weights.values()])
        if bool((values < 0).any()) or not bool((values > 0).any()):
            raise UserError(
                f"task.shading at step {step.index} is {values.tolist()}: weights must be >= 0, and one above"
            )
        chosen = int(torch.multinomial(values, 1)) if int((values > 0).sum()) > 1 else int(values.argmax())
        return None if chosen == 0 else list(self.weights)[chosen]
