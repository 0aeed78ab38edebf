"""References for score models (Song et al. 2021, arXiv:2011.13456).

scores.safetensors in tests/fixtures, of diffusion_tables.rs: the samplers, in the format of schedulers.safetensors; a
case's `sampler` is its name here where the class does not say it. The schedulers of diffusers are run in float64; what
they do not have (ODEs, corrections of the variance-preserving kind) is written out as published.

score_runs.json and .safetensors, of scores.rs: whole runs of tiny networks, two pictures, each as diffusers' pipeline draws
it alone from a generator of the CPU, and the latents after each step.

    pip install torch torchvision timm diffusers safetensors numpy
    python scores.py
"""

import json
import math
import pathlib

import numpy as np
import safetensors.numpy
import torch
from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel
from diffusers.schedulers import scheduling_sde_ve as module_ve
from diffusers.schedulers.deprecated import scheduling_sde_vp as module_vp
from safetensors.torch import save_file

from latent import config as config_of
from latent import fill
from schedulers import ELEMENTS, FIXTURES, ROWS, toy

SHAPE = (1, 1, 1, ELEMENTS)


def toy_score(x, sigma):
    return -(x + 0.3 * torch.sin(1.3 * x)) / (1 + sigma**2)


class Ve:
    def __init__(self, config):
        self.scheduler = module_ve.ScoreSdeVeScheduler(**config)
        self.config = self.scheduler.config
        self.init = self.scheduler.init_noise_sigma

    def start(self, steps):
        self.scheduler.set_timesteps(steps)
        self.scheduler.set_sigmas(steps)
        self.times = self.scheduler.timesteps

    def told(self, i):
        return self.scheduler.sigmas[i], self.scheduler.sigmas[i]

    def correct(self, i, m, x):
        return self.scheduler.step_correct(m, x).prev_sample

    def predict(self, i, m, x):
        step = self.scheduler.step_pred(m, self.times[i], x)
        return step.prev_sample, step.prev_sample_mean

    def ode(self, t):
        """Noise level, scale and timestep at a time, and the noise in a model's answer."""
        low, high = self.config.sigma_min, self.config.sigma_max
        sigma = low * (high / low) ** t
        return sigma, 1.0, sigma, lambda m: -sigma * m

    def time_of(self, sigma):
        low, high = self.config.sigma_min, self.config.sigma_max
        return math.log(sigma / low) / math.log(high / low)


class Vp:
    init = 1.0

    def __init__(self, config):
        self.snr, self.correct_steps = config.pop("snr", 0.16), config.pop("correct_steps", 1)
        self.scheduler = module_vp.ScoreSdeVpScheduler(**config)
        self.config = self.scheduler.config

    def start(self, steps):
        self.scheduler.set_timesteps(steps)
        self.times = self.scheduler.timesteps

    def beta(self, t):
        return self.config.beta_min + t * (self.config.beta_max - self.config.beta_min)

    def signal(self, t):
        return math.exp(-0.25 * t**2 * (self.config.beta_max - self.config.beta_min) - 0.5 * t * self.config.beta_min)

    def told(self, i):
        t = float(self.times[i])
        return torch.tensor(999.0 * t), torch.tensor((1 - self.signal(t) ** 2) ** 0.5 / self.signal(t))

    def correct(self, i, m, x):
        """The Langevin corrector of the paper's authors."""
        t = float(self.times[i])
        score = -m / (1 - self.signal(t) ** 2) ** 0.5
        alpha = 1 - self.beta(t) / self.config.num_train_timesteps
        z = module_vp.randn_tensor(SHAPE)
        step = (self.snr * z.norm() / score.norm()) ** 2 * 2 * alpha
        return x + step * score + torch.sqrt(2 * step) * z

    def predict(self, i, m, x):
        return self.scheduler.step_pred(m, x, self.times[i].reshape(1))

    def ode(self, t):
        signal = self.signal(t)
        return (1 - signal**2) ** 0.5 / signal, signal, 999.0 * t, lambda m: m

    def time_of(self, sigma):
        from_to = [0.0, 1.0]
        for _ in range(200):
            middle = sum(from_to) / 2
            from_to[int(self.ode(middle)[0] > sigma)] = middle
        return sum(from_to) / 2


def run(case, pools, model=None):
    """The rows of a case, and the scale of its first noise."""
    torch.set_default_dtype(torch.float64)
    z, answers = pools["z"].double(), iter(pools["m"].double())
    draws = iter(range(1, ROWS))
    module_ve.randn_tensor = module_vp.randn_tensor = lambda *args, **kwargs: z[next(draws)].reshape(SHAPE)
    kind = (Ve if case["class"] == "ScoreSdeVeScheduler" else Vp)(dict(case["config"]))
    kind.start(case["steps"])
    rows, x = [], pools["x"].double().reshape(SHAPE)

    def answer(seen, told):
        return model(seen, torch.as_tensor(told)) if model else next(answers).reshape(SHAPE)

    def row(timestep, sigma, x):
        rows.append(torch.cat([torch.tensor([float(timestep), float(sigma)]), x.flatten()]))

    if case.get("sampler") in ("euler", "heun"):
        sigmas = [kind.ode(float(t))[0] for t in kind.times]
        if case.get("sigmas") == "karras":
            ramp = np.linspace(0, 1, case["steps"])
            ends = [sigmas[i] ** (1 / 7) for i in (0, -1)]
            sigmas = [(ends[0] + r * (ends[1] - ends[0])) ** 7 for r in ramp]
        init = sigmas[0] if isinstance(kind, Ve) else math.hypot(sigmas[0], 1)
        x = x * init

        # Karras et al. 2022, algorithm 1, for a latent whose picture is not scaled: dx = noise dσ.
        def slope(x, sigma):
            _, signal, timestep, noise = kind.ode(kind.time_of(sigma))
            return noise(answer(signal * x, timestep)), timestep

        for sigma, to in zip(sigmas, sigmas[1:] + [0.0]):
            first, timestep = slope(x, sigma)
            end = x + (to - sigma) * first
            row(timestep, sigma, end)
            if case["sampler"] == "heun" and to > 0:
                second, timestep = slope(end, to)
                end = x + (to - sigma) * (first + second) / 2
                row(timestep, to, end)
            x = end
    else:
        init = kind.init
        x = x * init
        corrections = 0
        if case.get("sampler", "pc" if isinstance(kind, Ve) else "reverse-sde") == "pc":
            corrections = kind.config.correct_steps if isinstance(kind, Ve) else kind.correct_steps
        for i in range(case["steps"]):
            timestep, sigma = kind.told(i)
            for _ in range(corrections):
                x = kind.correct(i, answer(x, timestep), x)
                row(timestep, sigma, x)
            x, mean = kind.predict(i, answer(x, timestep), x)
            x = mean if i + 1 == case["steps"] else x
            row(timestep, sigma, x)
    torch.set_default_dtype(torch.float32)
    return torch.stack(rows), float(init)


def cases():
    ve, vp = "ScoreSdeVeScheduler", "ScoreSdeVpScheduler"
    published = dict(sigma_min=0.01, sigma_max=50.0, snr=0.17)
    for steps, config in (
        (2, {}),
        (10, {}),
        (20, published),
        (13, dict(published, correct_steps=2)),
        (7, dict(published, sampling_eps=0.3)),
        (12, dict(published, correct_steps=0)),
    ):
        yield {"class": ve, "config": config, "steps": steps}
        yield {"class": ve, "config": config, "steps": steps, "sampler": "reverse-sde"}
    for steps, config in ((2, {}), (10, {}), (20, dict(beta_min=0.2, beta_max=12.0)), (5, dict(sampling_eps=0.01))):
        yield {"class": vp, "config": config, "steps": steps}
        yield {"class": vp, "config": config, "steps": steps, "sampler": "pc"}
    yield {"class": vp, "config": dict(snr=0.1, correct_steps=2, num_train_timesteps=1000), "steps": 6, "sampler": "pc"}
    for cls in (ve, vp):
        for steps, config, more in ((2, {}, {}), (11, {}, {}), (10, {}, {"sigmas": "karras"})):
            for sampler in ("euler", "heun"):
                yield {"class": cls, "config": config, "steps": steps, "sampler": sampler, **more}


def write_tables():
    torch.manual_seed(1)
    pools = {
        "x": torch.randn(ELEMENTS),
        "picture": torch.rand(ELEMENTS) * 2 - 1,
        "m": torch.randn(ROWS, ELEMENTS),
        "z": torch.randn(ROWS, ELEMENTS),
    }
    tensors, listed = dict(pools), []
    for i, case in enumerate(cases()):
        case["name"] = f"{i:03}"
        rows, case["init"] = run(case, pools)
        assert torch.isfinite(rows).all(), case
        free, _ = run(case, pools, toy_score if case["class"] == "ScoreSdeVeScheduler" else toy)
        tensors[case["name"]], tensors[case["name"] + ".free"] = rows, free[-1, 2:].clone()
        listed.append(case)
    metadata = {"cases": json.dumps(listed, separators=(",", ":"))}
    save_file(tensors, FIXTURES / "scores.safetensors", metadata)
    print(len(listed), "cases")


SEEDS = (7, 8)
NETWORKS = {
    "ve": dict(
        sample_size=16,
        norm_num_groups=None,
        norm_eps=1e-6,
        attention_head_dim=None,
        mid_block_scale_factor=2**0.5,
        time_embedding_type="fourier",
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("SkipDownBlock2D",) * 2,
        up_block_types=("SkipUpBlock2D",) * 2,
    ),
    "vp": dict(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        norm_num_groups=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ),
}


def ve_run(unet, seed, steps, config):
    """Latents after each step of diffusers' pipeline, the last without its noise."""
    scheduler = ScoreSdeVeScheduler(**config)
    latents, step_pred = [], scheduler.step_pred

    def step(*args, **kwargs):
        output = step_pred(*args, **kwargs)
        last = len(latents) + 1 == steps
        latents.append(output.prev_sample_mean if last else output.prev_sample)
        return output

    scheduler.step_pred = step
    generator = torch.Generator().manual_seed(seed)
    pipeline = ScoreSdeVePipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(num_inference_steps=steps, generator=generator, output_type="np").images
    return latents, (np.round(picture * 255)).astype(np.uint8)


@torch.no_grad()
def vp_run(unet, seed, steps, config):
    """The loop that diffusers had as ScoreSdeVpPipeline, told the time as the authors' networks are."""
    scheduler = module_vp.ScoreSdeVpScheduler(**config)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 1, 16, 16, generator=generator)
    latents = []
    for t in scheduler.timesteps:
        x, mean = scheduler.step_pred(unet(x, 999 * t.reshape(1)).sample, x, t.reshape(1), generator=generator)
        latents.append(x if len(latents) + 1 < steps else mean)
    picture = (latents[-1] / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return latents, np.round(picture * 255).astype(np.uint8)


@torch.no_grad()
def ode_run(unet, seed, steps, config):
    """Heun's method in the noise level, as published."""
    ve = Ve(config)
    generator = torch.Generator().manual_seed(seed)
    times = np.linspace(1, ve.config.sampling_eps, steps)
    sigmas = [float(ve.ode(t)[0]) for t in times] + [0.0]
    x, latents = sigmas[0] * torch.randn(1, 3, 16, 16, generator=generator), []
    for sigma, to in zip(sigmas, sigmas[1:]):
        first = -sigma * unet(x, torch.tensor([sigma])).sample
        end = x + (to - sigma) * first
        if to > 0:
            end = x + (to - sigma) * (first - to * unet(end, torch.tensor([to])).sample) / 2
        x = end
        latents.append(x)
    picture = x.clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return latents, np.round(picture * 255).astype(np.uint8)


def write_runs():
    import importlib

    # `run` has put its own noise there.
    importlib.reload(module_ve), importlib.reload(module_vp)
    arrays, described = {}, {"networks": {}, "runs": {}}
    unets = {}
    for name, options in NETWORKS.items():
        unets[name] = UNet2DModel(**options).eval()
        described["networks"][name] = {"config": config_of(unets[name]), "tensors": fill(unets[name])}
    ve = dict(sigma_min=0.05, sigma_max=20.0, snr=0.17)
    for name, net, run_of, sampler, steps, cls, config in (
        ("pc", "ve", ve_run, None, 4, "ScoreSdeVeScheduler", ve),
        ("reverse-sde", "ve", ve_run, None, 5, "ScoreSdeVeScheduler", dict(ve, correct_steps=0)),
        ("heun", "ve", ode_run, "heun", 4, "ScoreSdeVeScheduler", ve),
        ("vp", "vp", vp_run, None, 5, "ScoreSdeVpScheduler", dict(beta_max=5.0)),
    ):
        runs = [run_of(unets[net], seed, steps, config) for seed in SEEDS]
        latents = torch.stack([torch.cat(step) for step in zip(*(latents for latents, _ in runs))])
        arrays[name] = latents.permute(0, 1, 3, 4, 2).contiguous().float().numpy()
        arrays[name + ".pictures"] = np.ascontiguousarray(np.concatenate([p for _, p in runs]), np.float32)
        print(name, [float(x) for x in latents.std(dim=(1, 2, 3, 4))])
        scheduler = json.dumps({"_class_name": cls, **config})
        described["runs"][name] = dict(network=net, sampler=sampler, steps=steps, scheduler=scheduler)
    (FIXTURES / "score_runs.json").write_text(json.dumps(described, separators=(",", ":")) + "\n")
    safetensors.numpy.save_file(arrays, FIXTURES / "score_runs.safetensors")


if __name__ == "__main__":
    write_tables()
    write_runs()
