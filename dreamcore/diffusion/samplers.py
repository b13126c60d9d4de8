"""Samplers: which know which noise levels, and what the libraries call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..config.common import Scheduler
    from .coefficients import Prediction


DPM = {"algorithm_type": "dpmsolver++"}
OLD_DPM = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
"""DPM-Solver (arXiv 2206.00927), which has no last step to a noise level of 0."""
SAMPLERS: dict[str, dict[Scheduler, tuple[str, dict[str, Any]]]] = {
    "discrete": {
        "ddim": ("DDIMScheduler", {}),
        "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
        "dpmsolver": ("DPMSolverMultistepScheduler", OLD_DPM),
        "dpmsolver++": ("DPMSolverMultistepScheduler", DPM),
        "euler": ("EulerDiscreteScheduler", {}),
        "unipc": ("UniPCMultistepScheduler", {}),
        "ddpm": ("DDPMScheduler", {}),
    },
    "flow": {"euler": ("FlowMatchEulerDiscreteScheduler", {})},
    "solved flow": {"dpmsolver++": ("DPMSolverMultistepScheduler", DPM), "unipc": ("UniPCMultistepScheduler", {})},
    "edm": {"euler": ("EDMEulerScheduler", {}), "dpmsolver++": ("EDMDPMSolverMultistepScheduler", DPM)},
}
"""Noise levels -> sampler, as settings name it -> class and options; the one to use by default first."""


READ_VARIANCE = ("DDPMScheduler",)
"""Classes that let a network say the variance of each step, where it answers with one."""


def samplers(prediction: Prediction, solver: str = "") -> Mapping[Scheduler, tuple[str, dict[str, Any]]]:
    """The samplers that know a model's noise levels, by what it predicts.

    Args:
        solver: of a flow, the class that its model names: that and those after it, for HiDream's pipeline tells all but
            its own a shift that they do not know.
    """
    solvers = list(SAMPLERS["solved flow"].items())
    own = next((i for i, (_, (name, _)) in enumerate(solvers) if name == solver), None)
    if prediction == "flow" and own is not None:
        return dict(solvers[own:])
    return SAMPLERS[prediction if prediction in SAMPLERS else "discrete"]
