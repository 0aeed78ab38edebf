"""Writes flow.safetensors in tests/fixtures, a reference of diffusion_tables.rs: the schedulers of flow models. The
format is that of schedulers.safetensors; a case's `tokens` is the number that the shift depends on.

    pip install torch diffusers scipy safetensors numpy
    python flow.py
"""

from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from schedulers import write_schedulers

EULER, HEUN = "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"
DYNAMIC = dict(use_dynamic_shifting=True)


def dynamic(tokens, steps, **config):
    config = DYNAMIC | config
    keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    defaults = (256, 4096, 0.5, 1.15)
    mu = calculate_shift(tokens, *(config.get(key, default) for key, default in zip(keys, defaults)))
    given = dict(num_inference_steps=steps, mu=mu)
    return {"class": EULER, "config": config, "steps": steps, "tokens": tokens, "given": given}


def cases():
    for cls in (EULER, HEUN):
        for shift, steps in ((1.0, 1), (3.0, 4), (3.0, 20), (0.5, 10), (6.0, 2)):
            yield {"class": cls, "config": dict(shift=shift), "steps": steps}
        yield {"class": cls, "config": dict(shift=3.0, num_train_timesteps=400), "steps": 7}
        # Of 5 steps and a half three run: not as in other pipelines.
        for steps, strength in ((5, 0.5), (10, 0.6), (20, 0.29), (4, 1.0)):
            yield {"class": cls, "config": dict(shift=3.0), "steps": steps, "strength": strength}
    for tokens, steps in ((256, 4), (1024, 10), (4096, 20), (9000, 3)):
        yield dynamic(tokens, steps)
    yield dynamic(1500, 6, base_shift=0.25, max_shift=0.75, time_shift_type="linear")
    yield dynamic(600, 6, base_image_seq_len=100, max_image_seq_len=900, shift_terminal=0.1)
    for extra in (
        dict(shift_terminal=0.1),
        dict(use_karras_sigmas=True),
        dict(use_exponential_sigmas=True),
        dict(shift_terminal=0.05, use_karras_sigmas=True),
        dict(stochastic_sampling=True),
    ):
        for steps in (2, 12):
            yield {"class": EULER, "config": dict(shift=3.0, **extra), "steps": steps}
    yield {"class": EULER, "config": dict(shift=3.0, stochastic_sampling=True), "steps": 8, "strength": 0.7}


write_schedulers(cases(), "flow.safetensors")
