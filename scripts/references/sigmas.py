"""Writes sigmas.safetensors in tests/fixtures, the second reference of diffusion_tables.rs: the noise levels that no
scheduler of diffusers has by itself, given to it as a list, and those that its configuration names. The format is
that of schedulers.safetensors; a case's `sigmas` is the name or list that the test parses.

    pip install torch diffusers scipy safetensors numpy
    python sigmas.py
"""

import numpy as np
from diffusers.schedulers.scheduling_utils import AysSchedules

from schedulers import SD, write_schedulers

SIGMAS = np.sqrt(1 / np.cumprod(1 - np.linspace(SD["beta_start"] ** 0.5, SD["beta_end"] ** 0.5, 1000) ** 2) - 1)


def sigma_at(timesteps):
    """Of broken timesteps: along the logarithm."""
    return np.exp(np.interp(timesteps, np.arange(1000), np.log(SIGMAS)))


def simple(steps):
    """Every (1000 / steps)th level from the last one down, indices cut off."""
    return SIGMAS[[-(1 + int(i * len(SIGMAS) / steps)) for i in range(steps)]]


def sgm_uniform(steps):
    return sigma_at(np.linspace(999, 0, steps + 1)[:-1])


def kl_optimal(steps, high, low):
    share = np.arange(steps) / (steps - 1)
    return np.tan(share * np.arctan(low) + (1 - share) * np.arctan(high))


def aligned(name, steps):
    """Ten published levels and the end of the run, interpolated as the authors do."""
    levels = np.array(AysSchedules[name][:-1] + [0.029])
    at = np.linspace(0, 1, steps + 1)
    return np.exp(np.interp(at, np.linspace(0, 1, len(levels)), np.log(levels)))[:-1]


def cases():
    sigma_space = ["EulerDiscreteScheduler"]
    others = ["HeunDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"]
    others += ["KDPM2DiscreteScheduler", "DPMSolverSDEScheduler", "LMSDiscreteScheduler"]
    for cls in sigma_space + others:
        for steps, spacing in ((1, "linspace"), (4, "leading"), (20, "trailing")):
            if cls.startswith("DEIS") and steps == 1:
                continue  # ends where it begins in diffusers
            yield {"class": cls, "config": dict(SD, use_beta_sigmas=True, timestep_spacing=spacing), "steps": steps}
    linspace = dict(SD, timestep_spacing="linspace")
    given = {
        "align-your-steps": lambda n: aligned("StableDiffusionSigmas", n),
        "align-your-steps-xl": lambda n: aligned("StableDiffusionXLSigmas", n),
        "simple": simple,
        "sgm-uniform": sgm_uniform,
    }
    for cls in sigma_space:
        for name, levels in given.items():
            for steps in (1, 7, 10, 20):
                sigmas = [*map(float, levels(steps)), 0.0]
                yield {"class": cls, "config": SD, "steps": steps, "sigmas": name, "given": {"sigmas": sigmas}}
        # Its ends are those of the timesteps of the spacing.
        sigmas = [*map(float, kl_optimal(10, SIGMAS[-1], SIGMAS[0])), 0.0]
        yield {"class": cls, "config": linspace, "steps": 10, "sigmas": "kl-optimal", "given": {"sigmas": sigmas}}
        # Also above and below what the model was trained on.
        sigmas = [80.0, 14.6, 6.3, 1.25, 0.3, 0.01, 0.0]
        text = ",".join(map(str, sigmas))
        yield {"class": cls, "config": SD, "steps": 6, "sigmas": text, "given": {"sigmas": sigmas}}
    for cls in (*sigma_space, "HeunDiscreteScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler"):
        for timesteps in (AysSchedules["StableDiffusionTimesteps"], [999, 400, 1], [700]):
            text = "timesteps:" + ",".join(map(str, timesteps))
            yield {"class": cls, "config": SD, "steps": len(timesteps), "sigmas": text, "given": {"timesteps": timesteps}}
    simple_timesteps = [999 - int(i * 1000 / 7) for i in range(7)]
    for cls in ("DDPMScheduler", "DPMSolverMultistepScheduler"):
        yield {"class": cls, "config": SD, "steps": 7, "sigmas": "simple", "given": {"timesteps": simple_timesteps}}
    for spacing in ("leading", "trailing"):
        config = dict(beta_schedule="sigmoid", timestep_spacing=spacing)
        yield {"class": "DDPMScheduler", "config": config, "steps": 10}


if __name__ == "__main__":
    write_schedulers(cases(), "sigmas.safetensors")
