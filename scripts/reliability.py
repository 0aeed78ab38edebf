#!/usr/bin/env python3
"""Keeps the table of promises in docs/reliability.md: what is promised, where it is tested, the last figure, the command behind it.

    python3 scripts/reliability.py run [KEY]...    runs commands, all or those named, and keeps their figures
    python3 scripts/reliability.py write           the table from what is kept
    python3 scripts/reliability.py check           fails where the document does not say what is kept

Promises stand in docs/reliability.toml. A command prints its figure as a line `figure KEY: TEXT`; otherwise the number of
tests that passed is one. A command that fails, or has none, changes nothing. Figures lie in docs/reliability.json with their
day and commit.
"""

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMISES = ROOT / "docs/reliability.toml"
FIGURES = ROOT / "docs/reliability.json"
DOCUMENT = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- promises: written by scripts/reliability.py -->", "<!-- end of promises -->"


def replace(path, text):
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    beside.rename(path)


def kept():
    return json.loads(FIGURES.read_text()) if FIGURES.exists() else {}


def table(promises, figures):
    lines = ["| promise | tested by | figure | command |", "|---|---|---|---|"]
    for promise in promises:
        figure = figures.get(promise["key"])
        said = f"{figure['figure']} ({figure['day']}, {figure['commit']})" if figure else "not run yet"
        test = ", ".join(f"`{path}`" for path in promise["tests"])
        lines.append(f"| {promise['promise']} | {test} | {said} | `{promise['command']}` |")
    return "\n".join(lines)


def document(promises):
    before, rest = DOCUMENT.read_text().split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{table(promises, kept())}\n\n{END}{after}"


def run(promise):
    """The command's figure, as it goes along its output is shown."""
    print(f"\n== {promise['key']}: {promise['command']}", flush=True)
    mark, figure, passed = f"figure {promise['key']}: ", None, 0
    command = subprocess.Popen(
        ["bash", "-c", promise["command"]],
        cwd=ROOT,
        env={**os.environ, "REQUIRE_GPU": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in command.stdout:
        print(line, end="", flush=True)
        # Lines of tables are for documents that have them.
        if mark in line and not (said := line.split(mark, 1)[1].strip()).startswith("|"):
            figure = said
        # As nextest and libtest end.
        if found := re.search(r"tests? run: (\d+) passed|test result: ok\. (\d+) passed", line):
            passed += int(found[1] or found[2])
    if command.wait() != 0:
        raise RuntimeError(f"the command ended with {command.returncode}")
    if figure is None and passed == 0:
        raise RuntimeError(f"the command printed no line `{mark}…`, and no test passed")
    return figure or f"{passed} tests passed"


def main(action, *keys):
    promises = tomllib.loads(PROMISES.read_text())["promise"]
    known = [promise["key"] for promise in promises]
    for key in keys:
        if key not in known:
            sys.exit(f"no promise has the key {key}; there are {', '.join(known)}")
    for path in {path for promise in promises for path in promise["tests"]}:
        if not (ROOT / path).exists():
            sys.exit(f"{PROMISES.name} names {path}, which is not there")
    failed = []
    if action == "run":
        git = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
        commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        day = datetime.date.today().isoformat()
        for promise in promises:
            if keys and promise["key"] not in keys:
                continue
            try:
                figure = run(promise)
            except RuntimeError as error:
                failed.append(f"{promise['key']}: {error}")
                continue
            figures = {**kept(), promise["key"]: {"figure": figure, "day": day, "commit": commit}}
            replace(FIGURES, json.dumps(dict(sorted(figures.items())), indent=2, ensure_ascii=False) + "\n")
    text = document(promises)
    if action == "check":
        if text != DOCUMENT.read_text():
            sys.exit("docs/reliability.md is not what is kept; run: python3 scripts/reliability.py write")
    else:
        replace(DOCUMENT, text)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("run", "write", "check"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
