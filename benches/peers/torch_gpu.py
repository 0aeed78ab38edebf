"""PyTorch on an NVIDIA GPU: products and copies, kernels, networks, and the parts of Stable Diffusion 1.5.

    torch_gpu.py [--only PART,PART...] [--compile] [--autotune] [--budget SECONDS] [--output FILE]

A mark from outside for what is measured here on the same card. Parts, in the order in which they are measured:

    products    matrix products, copies within the device
    kernels     those of items.py and some of `aquatint bench --suite kernels`, under the names that they have there
    resnet      ResNet-50 at batch 1 and 32; MobileNetV2 and EfficientNet-B0 at batch 1
    vae, unet   the decoder to 512×512, and the UNet at 64×64 latents, batch 2
    kernels-compile, resnet-compile, vae-compile, unet-compile      the same by torch.compile

Without --only: the first five. --compile adds the compiled ones of the parts asked for but for the UNet's, which takes
minutes and is only measured when --only names it.

How a row is run:

    eager      call after call from Python; short kernels wait for it
    graph      the same kernels replayed from a CUDA graph, so that Python takes no time
    compile    kernels: Inductor's default mode, replayed from a CUDA graph, which is mode="reduce-overhead" without the
               copy of inputs that it makes for each call; with --autotune mode="max-autotune-no-cudagraphs" instead.
               Networks: mode="reduce-overhead", called from Python

Columns: f32 with TF32 off, TF32, f16; TFLOP/s or, without products, GB/s read and written. cudnn.benchmark is on, all
else is as PyTorch has it. Weights and inputs are random; answers are held against float64 (the diffusion model's
against f32) before they are timed. A time is the median of rounds between CUDA events, after warm-up; operands stay
where the run before left them, so small ones are in the cache.
"""
import argparse
import copy
import datetime
import faulthandler
import gc
import json
import logging
import math
import os
import pathlib
import signal
import statistics
import time
import warnings
from dataclasses import dataclass, replace
from typing import Callable

import torch
import torchvision
from torch.fx.experimental.optimization import fuse
from torch.utils.flop_counter import FlopCounterMode

from items import Attention, Matmul, Softmax, conv, group_norm

PARTS = ["products", "kernels", "resnet", "vae", "unet"]
COMPILED = ["kernels-compile", "resnet-compile", "vae-compile", "unet-compile"]
ROUNDS, ROUND_SECONDS, WARM_SECONDS = 7, 0.02, 0.1
# Of a CUDA graph of short kernels, whose replay then takes much longer than its launch.
GRAPH_SECONDS, GRAPH_RUNS = 0.005, 200
# Relative to the norm. f32 gives 1e-6, one product in TF32 or f16 3e-4, which networks of random weights enlarge up to
# a hundred times where they are normalised; a wrong answer is off by 1.
TOLERANCE = {"f32": 1e-4, "tf32": 5e-2, "f16": 5e-2}
DTYPE = {"f32": torch.float32, "tf32": torch.float32, "f16": torch.float16}
FORMAT = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
MAPS = ("nchw", "nhwc")


@dataclass
class Subject:
    """What is measured, in several precisions, layouts and ways."""

    name: str
    # The module and its inputs in f32, on the device.
    make: Callable[[], tuple[torch.nn.Module, list[torch.Tensor]]]
    hows: tuple[str, ...] = ("eager", "graph")
    # Of feature maps; None where there are none.
    layouts: tuple[str | None, ...] = (None,)
    precisions: tuple[str, ...] = ("f32", "tf32", "f16")
    # Of its reference.
    exact: torch.dtype = torch.float64
    # Seconds after which one measurement is given up; it is not begun when less than a quarter is left.
    limit: float = 20


class Add(torch.nn.Module):
    def forward(self, a, b):
        return a + b


class Copy(torch.nn.Module):
    """Into memory that is there already."""

    def __init__(self, shape):
        super().__init__()
        self.register_buffer("target", torch.empty(shape))

    def forward(self, x):
        return self.target.copy_(x)


class UNet(torch.nn.Module):
    def __init__(self):
        from diffusers import UNet2DConditionModel

        super().__init__()
        self.unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)

    def forward(self, latent, timestep, text):
        return self.unet(latent, timestep, encoder_hidden_states=text, return_dict=False)[0]


class Decoder(torch.nn.Module):
    def __init__(self):
        from diffusers import AutoencoderKL

        super().__init__()
        self.vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=512,
        )

    def forward(self, latent):
        return self.vae.decode(latent, return_dict=False)[0]


def kernel(make, *shapes):
    return lambda: (make(), [torch.randn(shape) for shape in shapes])


def network(name, batch, folded=False):
    """One of torchvision's."""

    def make():
        module = getattr(torchvision.models, name)().eval()
        if name != "resnet50":
            settle(module)
        return fuse(module) if folded else module, [torch.randn(batch, 3, 224, 224)]

    return make


def settle(module):
    """Teaches batch norms what comes: else it vanishes in f16, with random weights."""
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        module(torch.randn(8, 3, 224, 224))
    module.eval()


def products():
    for n in (4096, 8192):
        yield Subject(f"matmul/1x{n}x{n}x{n}", kernel(Matmul, (n, n), (n, n)), ("eager",))
    for mebi in (256, 2048):
        shape = (mebi << 18,)
        yield Subject(f"copy/{mebi} MiB", kernel(lambda: Copy(shape), shape), ("eager",), precisions=("f32",))


def kernels(hows):
    for n, side, c_in, c_out, size, groups in [
        (1, 56, 64, 64, 3, 1),
        (1, 28, 128, 128, 3, 1),
        (1, 32, 320, 320, 3, 1),
        (2, 64, 320, 320, 3, 1),
        (1, 7, 512, 512, 3, 1),
        (1, 56, 256, 64, 1, 1),
        (1, 56, 144, 144, 3, 144),
    ]:
        kind = "depthwise " if groups > 1 else ""
        name = f"conv2d/{kind}{size}x{size} {c_in}->{c_out} {n}x{side}x{side}"
        yield Subject(name, kernel(conv(c_in, c_out, size, groups), (n, c_in, side, side)), hows, MAPS)
    for n, side in [(1, 32), (2, 64)]:
        name = f"group_norm/with silu, 32 groups, {n}x{side}x{side}x320"
        yield Subject(name, kernel(group_norm, (n, 320, side, side)), hows, MAPS)
    for rows, k, m in [(1024, 320, 320), (1024, 1024, 1024)]:
        yield Subject(f"linear/{rows}x{k}->{m}", kernel(lambda: torch.nn.Linear(k, m), (rows, k)), hows)
    for n in (512, 1024):
        yield Subject(f"matmul/1x{n}x{n}x{n}", kernel(Matmul, (n, n), (n, n)), hows)
    for n, rows in [(1, 1024), (2, 4096)]:
        yield Subject(f"attention/{n}x{rows}x{rows}, 8 heads of 40", kernel(Attention, *[(n, 8, rows, 40)] * 3), hows)
    for name, shape in [("32x32x320", (1, 32, 32, 320)), ("16 Mi elements", (16 << 20,))]:
        yield Subject(f"elementwise/add {name}", kernel(Add, shape, shape), hows)
    for name, shape in [("1024x1000", (1024, 1000)), ("8x1024x1024", (8, 1024, 1024))]:
        yield Subject(f"softmax/{name}", kernel(Softmax, shape), hows)


def resnet(hows):
    for name, batch in [("resnet50", 1), ("resnet50", 32), ("mobilenet_v2", 1), ("efficientnet_b0", 1)]:
        yield Subject(f"{name}, batch {batch}", network(name, batch), hows, MAPS, limit=60)
        # As other engines do; Inductor does not by itself.
        if name == "resnet50" and "graph" in hows:
            folded = network(name, batch, folded=True)
            yield Subject(f"{name}, batch {batch}, norms folded", folded, ("graph",), MAPS, limit=60)


def vae(hows, layouts=MAPS):
    make = kernel(Decoder, (1, 4, 64, 64))
    yield Subject("vae decoder, 512x512, batch 1", make, hows, layouts, exact=torch.float32, limit=90)


def unet(hows, layouts=MAPS, precisions=("f32", "tf32", "f16"), limit=90):
    make = lambda: (UNet(), [torch.randn(2, 4, 64, 64), torch.tensor(500), torch.randn(2, 77, 768)])
    yield Subject("unet, 64x64 latents, batch 2", make, hows, layouts, precisions, torch.float32, limit)


def subjects(part):
    if part == "products":
        return products()
    name, _, compiled = part.partition("-")
    hows = ("compile",) if compiled else ("eager", "graph")
    if name == "kernels":
        return (replace(s, limit=60) if compiled else s for s in kernels(hows))
    if name == "resnet":
        return resnet(hows)
    if name == "vae":
        return vae(hows, ("nhwc",) if compiled else MAPS)
    return unet(hows, ("nhwc",), ("f16", "f32"), 300) if compiled else unet(hows)


class OutOfTime(BaseException):
    """Not an Exception, which compilers catch to go on otherwise."""


class Budget:
    """Seconds for all, of which each measurement may take so many."""

    def __init__(self, seconds):
        self.start, self.seconds = time.monotonic(), seconds
        signal.signal(signal.SIGALRM, self._alarm)
        # Where a call never comes back to Python: what is written so far is there.
        faulthandler.dump_traceback_later(seconds + 45, exit=True)

    def _alarm(self, *_):
        raise OutOfTime

    def left(self):
        return self.seconds - (time.monotonic() - self.start)

    def attempt(self, limit, work):
        """What `work` gives, or a status and its reason."""
        left = self.left()
        if left < limit / 4:
            return {"status": "skipped", "reason": f"{max(left, 0):.0f} s are left, it may take {limit / 4:.0f}"}
        seconds = min(limit, left)
        try:
            # Again and again, as a destructor would swallow it.
            signal.setitimer(signal.ITIMER_REAL, seconds, 10)
            return work()
        except OutOfTime:
            return {"status": "stopped", "reason": f"it takes more than {seconds:.0f} s"}
        except Exception as error:
            return {"status": "failed", "reason": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def use_tf32(on):
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def seconds_of(run, times, device):
    """Seconds of so many runs in a row, on the device's clock."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(times):
            run()
        return time.perf_counter() - start
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def rounds_of(run, device):
    """Seconds of one run, of each round."""
    spent = time.monotonic() + WARM_SECONDS
    run()
    once = seconds_of(run, 1, device)
    while time.monotonic() < spent:
        once = seconds_of(run, 1, device)
    times = max(1, math.ceil(ROUND_SECONDS / max(once, 1e-6)))
    return [seconds_of(run, times, device) / times for _ in range(ROUNDS)]


def replayed(run, device):
    """A CUDA graph of some runs, how many there are in it, and where the output of the last lies."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    once = seconds_of(run, 1, device)
    runs = min(max(1, math.ceil(GRAPH_SECONDS / max(once, 1e-6))), GRAPH_RUNS)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(runs):
            output = run()
    return graph, runs, output


def size_of(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


class Bench:
    def __init__(self, options):
        self.device, self.output = options.device, options.output
        self.kernel_mode = "max-autotune-no-cudagraphs" if options.autotune else "default"
        self.budget = Budget(options.budget)
        self.rows = []
        self.heading = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "device": "CPU" if self.device == "cpu" else torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if self.device == "cuda" else None,
            "compiled kernels": self.kernel_mode,
            "compiled networks": "reduce-overhead",
            "columns": "ms: median of rounds_ms; bytes: inputs, weights, output; error: relative to the norm",
        }

    def measure(self, part, subject):
        """All rows of a subject; prints them when they are there."""
        made = self.budget.attempt(subject.limit, lambda: self.make(subject))
        if isinstance(made, dict):
            self.keep([{"part": part, "name": subject.name, **made}])
            return
        module, inputs, reference, flop = made
        rows = []
        for precision in subject.precisions:
            # Nothing to do for TF32.
            if precision == "tf32" and flop == 0:
                continue
            for layout in subject.layouts:
                for how in subject.hows:
                    if how == "graph" and self.device == "cpu":
                        continue
                    about = {"part": part, "name": subject.name, "layout": layout, "how": how, "precision": precision}
                    work = lambda: self.row(about, module, inputs, reference)
                    rows.append({**about, "flop": flop, **self.budget.attempt(subject.limit, work)})
        self.keep(rows)

    def make(self, subject):
        """In f32, its answer in the precision that the others are held against, and operations of one run."""
        use_tf32(False)
        # cuDNN's search would take long for float64, and be of no use.
        torch.backends.cudnn.benchmark = False
        torch.manual_seed(0)
        with torch.device(self.device):
            module, inputs = subject.make()
        module.eval().requires_grad_(False)
        exact, operands = self.cast(module, inputs, subject.exact, None)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            reference = exact(*operands).clone()
        return module, inputs, reference, counter.get_total_flops()

    def cast(self, module, inputs, dtype, layout):
        """Copies of both, feature maps in this layout."""
        order = {"memory_format": FORMAT[layout]} if layout else {}
        module = copy.deepcopy(module).to(dtype=dtype, **order)
        floats = lambda x: x.is_floating_point()
        return module, [x.to(dtype=dtype, **(order if x.dim() == 4 else {})) if floats(x) else x for x in inputs]

    def row(self, about, module, inputs, reference):
        precision, how = about["precision"], about["how"]
        use_tf32(precision == "tf32")
        torch.backends.cudnn.benchmark = True
        module, inputs = self.cast(module, inputs, DTYPE[precision], about["layout"])
        if how != "compile":
            with torch.inference_mode():
                return self.timed(module, inputs, reference, TOLERANCE[precision], in_graph=how == "graph")
        torch._dynamo.reset()
        is_kernel = about["part"] == "kernels-compile"
        compiled = torch.compile(module, mode=self.kernel_mode if is_kernel else "reduce-overhead", dynamic=False)
        with torch.no_grad():
            return self.timed(compiled, inputs, reference, TOLERANCE[precision], in_graph=is_kernel)

    def timed(self, module, inputs, reference, tolerance, in_graph):
        run = lambda: module(*inputs)
        began = time.monotonic()
        # What mode="reduce-overhead" compiles, it records in the second run and replays in the third.
        for _ in range(3):
            output = run()
        output, first, runs = output.clone(), time.monotonic() - began, 1
        if in_graph and self.device == "cuda":
            graph, runs, output = replayed(run, self.device)
            graph.replay()
            run = graph.replay
        error = ((output.to(reference.dtype) - reference).norm() / reference.norm()).item()
        found = {"bytes": size_of([*inputs, *module.parameters(), output]), "first_runs_s": first}
        if not error <= tolerance:
            return {"status": "wrong", "reason": f"relative error {error:.1e}", **found}
        rounds = [seconds * 1e3 / runs for seconds in rounds_of(run, self.device)]
        return {"status": "ok", "ms": statistics.median(rounds), "rounds_ms": rounds, "error": error, **found}

    def free(self):
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def keep(self, rows):
        self.rows += rows
        self.show(rows)
        if self.output:
            unfinished = self.output.with_name(self.output.name + ".part")
            unfinished.write_text(json.dumps({**self.heading, "rows": self.rows}, indent=1) + "\n")
            os.replace(unfinished, self.output)

    def show(self, rows):
        """A line for each layout and way, with time and rate in each precision; then what has no time."""
        lines = {}
        for row in rows:
            lines.setdefault((row.get("layout"), row.get("how")), {})[row.get("precision")] = row
        for (layout, how), line in lines.items():
            cells = []
            for precision in DTYPE:
                row = line.get(precision, {})
                if "ms" in row:
                    rate = row["flop"] / row["ms"] / 1e9 or row["bytes"] / row["ms"] / 1e6
                    cells.append(f"{row['ms']:10.4f} {rate:7.1f}")
                else:
                    cells.append(f"{row.get('status', ''):>18}")
            name = next(iter(line.values()))["name"]
            unit = "TFLOP/s" if any(row.get("flop") for row in line.values()) else "GB/s"
            if how:
                print(f"{name:46} {layout or '':4} {how:8}", *cells, unit, flush=True)
        reasons = {}
        for row in rows:
            if "reason" in row:
                where = " ".join(filter(None, [row.get("layout"), row.get("how"), row.get("precision")]))
                reasons.setdefault((row["status"], row["reason"]), []).append(where)
        for (status, reason), where in reasons.items():
            print(f"    {rows[0]['name']}: {', '.join(filter(None, where))} {status}: {reason}", flush=True)


def options():
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--only", type=lambda parts: parts.split(","), default=PARTS)
    read.add_argument("--compile", action="store_true")
    read.add_argument("--autotune", action="store_true")
    read.add_argument("--budget", type=float, default=240)
    read.add_argument("--output", type=pathlib.Path)
    # The CPU's times are of no use; it shows whether this runs.
    read.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    given = read.parse_args()
    unknown = set(given.only) - {*PARTS, *COMPILED}
    if unknown:
        read.error(f"no parts {' '.join(sorted(unknown))}; there are {' '.join(PARTS + COMPILED)}")
    if given.device == "cuda" and not torch.cuda.is_available():
        read.error("PyTorch finds no NVIDIA GPU")
    if given.compile:
        given.only = given.only + [f"{part}-compile" for part in ("kernels", "resnet", "vae") if part in given.only]
    return given


def main():
    given = options()
    # Failures stand in the table; compilers also log pages on each, and advise TF32.
    logging.disable(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*TensorFloat32.*")
    bench = Bench(given)
    print(", ".join(f"{name} {value}" for name, value in bench.heading.items() if name != "columns"))
    print(f"{'':60} {'f32 ms':>10} {'rate':>7} {'TF32 ms':>10} {'rate':>7} {'f16 ms':>10} {'rate':>7}", flush=True)
    for part in [*PARTS, *COMPILED]:
        if part in given.only:
            for subject in subjects(part):
                bench.measure(part, subject)
                bench.free()
    faulthandler.cancel_dump_traceback_later()
    print(f"{bench.budget.seconds - bench.budget.left():.0f} s of {given.budget:.0f}")


if __name__ == "__main__":
    main()
