"""Where the time of an onnxruntime session goes, by operator."""
import collections
import json
import tempfile
from pathlib import Path

RUNS = 5


def profiled(options):
    """The options of a session that `show` can be asked of."""
    options.enable_profiling = True
    options.profile_file_prefix = f"{tempfile.gettempdir()}/onnxruntime"
    return options


def show(session, inputs):
    """Runs it and prints milliseconds of a run: kernels that the session chose, under their names there."""
    # The first run allocates.
    for _ in range(RUNS + 1):
        session.run(None, inputs)
    trace = Path(session.end_profiling())
    events = json.loads(trace.read_text())
    trace.unlink()
    begin = sorted(e["ts"] for e in events if e["name"] == "model_run")[1]
    took, times = collections.Counter(), collections.Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= begin:
            took[event["args"]["op_name"]] += event["dur"] / 1e3 / RUNS
            times[event["args"]["op_name"]] += 1
    print(f"{'operator':<24}{'times':>6}{'ms':>10}")
    for name, ms in took.most_common():
        print(f"{name:<24}{times[name] // RUNS:>6}{ms:>10.2f}")
    print(f"{'all':<24}{sum(times.values()) // RUNS:>6}{took.total():>10.2f}")
