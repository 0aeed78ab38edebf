"""How an engine answers src/bench/peers/process.rs: what it is told on standard input, what it says on standard output."""
import json
import os
import sys
import time


class Unsupported(Exception):
    pass


def serve(name, runs_on, transfers, prepare, settle=0.0):
    """`prepare(item)` gives a function that runs once, waits, and returns the output as a NumPy array.

    An engine whose threads go on spinning after a run takes cores from the other side's turn: `settle` is how many
    seconds they take to sleep. Nothing is answered before; it counts for nobody.
    """
    # What engines print is not what they say.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(line):
        print(" ".join(str(line).split()), file=out, flush=True)

    say(json.dumps({"name": name, "runs_on": runs_on, "transfers": transfers}))
    run = None
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "prepare":
            item, answer = rest
            run = None
            try:
                run = prepare(item)
                result = run()
                with open(answer, "wb") as file:
                    file.write(result.astype("<f4").tobytes())
                del result
                say("ready")
            except Unsupported as why:
                say(f"unsupported {why}")
            except Exception as why:
                say(f"failed {type(why).__name__}: {why}"[:400])
        else:
            start = time.perf_counter()
            for _ in range(int(rest[0])):
                run()
            seconds = time.perf_counter() - start
            time.sleep(settle)
            say(seconds)
