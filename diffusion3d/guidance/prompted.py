"""Schemes that ask a prior under prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffusion3d.diffusion.combine import classifier_free, composed, rescale
from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Guidance, Scheduled, knots, scheduled_at
from diffusion3d.guidance.view_weights import VIEW_WEIGHTS
from diffusion3d.priors.base import Prior


class Prompted(Guidance):
    """Asks the prior under classifier-free guidance, with negative prompts and several at once.

    Args:
        prior: frozen.
        scale: classifier-free guidance, null + scale (cond - null); 1 is none.
        rescale: share of the guided x0's spread that is pulled back to the conditional one's.
        negative_prompt: takes the place of the null text in classifier-free guidance; "" is none.
        prompts: told beside the run's prompt.
        prompt_weights: of these; cond becomes cond + sum(w_i (cond_i - null)) (Liu et al. 2022, algorithm 1). A name of
            `VIEW_WEIGHTS` is a weight for every view.
        perpendicular: whether only what is perpendicular to cond - null is added (Perp-Neg, Armandpour et al. 2023).

    Raises:
        UserError: a negative scale, a share of rescaling outside 0 … 1, lists of unequal lengths.
    """

    worded: frozenset[str] = frozenset()
    """Of `texts`, what the prior words for the view as it does the run's prompt; it takes the others as they are written."""

    def __init__(
        self,
        prior: Prior,
        scale: Scheduled = 7.5,
        rescale: float = 0.0,
        negative_prompt: str = "",
        prompts: Sequence[str] = (),
        prompt_weights: Sequence[float | str] = (),
        perpendicular: bool = False,
    ) -> None:
        super().__init__(prior)
        for progress in knots(scale):
            if scheduled_at(scale, progress) < 0:
                raise UserError(
                    f"guidance.scale={scheduled_at(scale, progress):.3g} must not be negative: 0 ignores the prompt, 1 is no "
                    "guidance"
                )
        if not 0 <= rescale <= 1:
            raise UserError(f"guidance.rescale={rescale:.3g} must lie in 0 ... 1: 0 is none")
        if len(prompts) != len(prompt_weights):
            raise UserError(
                f"guidance: {len(prompts)} prompts and {len(prompt_weights)} prompt_weights; give each prompt a weight"
            )
        if not all(isinstance(weight, int | float) or weight in VIEW_WEIGHTS for weight in prompt_weights):
            raise UserError(
                f"guidance.prompt_weights={list(prompt_weights)} must be numbers, or of {', '.join(VIEW_WEIGHTS)}"
            )
        self.scale, self.rescale = scale, rescale
        self.negative_prompt, self.perpendicular = negative_prompt, perpendicular
        self.texts = {"negative": negative_prompt, **{f"prompt_{i}": prompt for i, prompt in enumerate(prompts)}}
        self.composition = {f"prompt_{i}": weight for i, weight in enumerate(prompt_weights)}

    def decoded(self, x: Tensor, like: Float[Tensor, "B V 3 H W"]) -> Float[Tensor, "B V 3 H W"]:
        """What x, in the prior's space, looks like, as large as `like`."""
        images, size = self.prior.decode(x), like.shape[-2:]
        if images.shape[-2:] == size:
            return images
        flat = F.interpolate(images.flatten(0, 1), size, mode="bilinear", antialias=True)
        return flat.unflatten(0, images.shape[:2])

    def told(self, name: str, condition: Condition) -> Condition:
        """The condition of a name: "cond", "null", or one of `texts`."""
        if name in ("cond", "null"):
            return condition if name == "cond" else condition.without_text()
        assert condition.cameras is not None
        say = self.prior.condition if name in self.worded else self.prior.plain_text
        return condition.with_text(say([self.texts[name]] * condition.cameras.shape[0], condition.cameras))

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition, *names: str) -> dict[str, Tensor]:
        """{name: x0} from one batch; "cond" is what all the prompts say together."""
        asked = list(names)
        if self.composition and "cond" in names:
            asked = list(dict.fromkeys([*names, "null", *self.composition]))
        predictions = self.prior.predict(x_t, t, {name: self.told(name, condition) for name in asked})
        if len(asked) > len(names):
            weights = {name: self.prompt_weight(name, condition) for name in self.composition}
            predictions["cond"] = Prediction(composed(predictions, weights, self.perpendicular))
        return {name: predictions[name].x0 for name in names}

    def prompt_weight(self, name: str, condition: Condition) -> float | Tensor:
        """Of one of the prompts; [B,V] where it changes with the view."""
        weight = self.composition[name]
        if not isinstance(weight, str):
            return weight
        assert condition.cameras is not None
        return VIEW_WEIGHTS[weight](condition.cameras)

    def guided(self, x_t: Tensor, t: Tensor, condition: Condition, scale: float) -> Tensor:
        """x0 under classifier-free guidance, rescaled; one pass through the prior where scale = 1 and there is one prompt."""
        if scale == 1:
            return self.predict(x_t, t, condition, "cond")["cond"]
        base = "negative" if self.negative_prompt else "null"
        x0 = self.predict(x_t, t, condition, base, "cond")
        named = {"null": Prediction(x0[base]), "cond": Prediction(x0["cond"])}
        return rescale(classifier_free(named, scale), x0["cond"], self.rescale)
