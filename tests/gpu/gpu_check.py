#!/usr/bin/env python3
"""Is drakegpt right on a GPU, and how fast? All that only a GPU can tell, in a few minutes.

    python tests/gpu/gpu_check.py [--text FILE] [--sections env,tests] [--dry-run]

in the root of a checkout; gpu_check.sh brings along what a machine without a network lacks.
Each section is a process of its own with a time limit, writes what it has found as it goes,
and costs the others nothing when it fails:

    env        which GPU, which PyTorch; that --device auto takes the GPU
    tests      the tests that need a GPU
    numbers    losses beside the CPU's, recorded steps beside plain ones; random state, dropout
    fallback   a capture that fails; memory that is given back, or is too little
    speed      time per iteration, share of the peak, memory, kernels that take the time
    train      `train TransformerLM --scaled`, 2,000 iterations; what 10,000 would take
    resume     killed and taken up again, beside runs that were not
    write      characters per second, evaluation, training with few bits, packed weights
    reference  the same model in plain PyTorch, written the usual way and as fast as it gets
    long       the 10,000 iterations themselves, if there is time left

The last line printed is one JSON object, in which `failed` names what is not as it should be.
With --dry-run all runs on the CPU at toy sizes.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from check.results import Results, failures

SECTIONS = {  # where each is, and its seconds at most
    "env": ("machine", 40),
    "tests": ("machine", 150),
    "numbers": ("numbers", 70),
    "fallback": ("fallback", 80),
    "speed": ("speed", 140),
    "train": ("program", 90),
    "resume": ("program", 200),
    "write": ("writing", 90),
    "reference": ("reference", 130),
    "long": ("program", 200),
}
WORTH_STARTING = {"long": 120, "reference": 60}  # seconds that must be left; else 20
CHECKOUT = Path(__file__).resolve().parents[2]


def main():
    """Run all sections, or one in this process."""
    arguments = _parser().parse_args()
    if arguments.dry_run:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if arguments.section:
        run_section(arguments)
    else:
        sys.exit(run_all(arguments))


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", default="gpu_check_out", help="a folder for results and logs")
    add("--text", default="", help="tiny Shakespeare; the sample of songs if not given")
    add("--seconds", type=float, default=460, help="for all sections together")
    add("--patience", type=float, default=1, help="multiplies the sections' limits")
    add("--sections", default=",".join(SECTIONS), help="only these, in this order")
    add("--dry-run", action="store_true", help="on the CPU, at toy sizes")
    add("--section", help=argparse.SUPPRESS)
    return parser


def run_section(arguments):
    """One section, in this process."""
    from check.workbench import Options

    name, folder = arguments.section, Path(arguments.out)
    section = getattr(import_module(f"check.{SECTIONS[name][0]}"), name)
    options = Options(arguments.text, arguments.dry_run, folder)
    section(options, Results(folder / f"{name}.json"))


def run_all(arguments):
    """All sections, one after the other; returns the exit code."""
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    for old in (out / "gpu_check.json", out / "log.txt", *out.glob("kernels_*.txt")):
        old.unlink(missing_ok=True)
    began, found, seconds = time.monotonic(), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sections.split(","):
            left = arguments.seconds - (time.monotonic() - began)
            if left < WORTH_STARTING.get(name, 20):
                found[name] = "no time left"
                continue
            limit = min(SECTIONS[name][1] * arguments.patience, left - 5)
            started = time.monotonic()
            found[name], output = _in_process(arguments, name, Path(folder), limit)
            seconds[name] = round(time.monotonic() - started, 1)
            # All that is known so far is kept, should this program not reach its end.
            whole = {"failed": failures(found), "seconds": seconds, **found}
            (out / "gpu_check.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")
            with (out / "log.txt").open("a", encoding="utf-8") as log:
                log.write(f"\n===== {name}: {seconds[name]} s\n{output[-200_000:]}")
            for table in Path(folder).glob("kernels_*.txt"):
                shutil.copy(table, out)
            print(f"{name}: {seconds[name]} s", file=sys.stderr, flush=True)
    failed = failures(found)
    print(json.dumps({"failed": failed, "seconds": seconds, **found}, separators=(",", ":")))
    return 1 if failed else 0


def _in_process(arguments, name, folder, limit):
    """A section in a process of its own; returns its findings, and what it printed."""
    command = [sys.executable, str(Path(__file__).resolve()), "--section", name]
    command += ["--out", str(folder), "--text", arguments.text]
    command += ["--dry-run"] if arguments.dry_run else []
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    log = folder / f"{name}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = "stopped at its limit"
        with suppress(ProcessLookupError):  # what it has started, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    found, output = folder / f"{name}.json", log.read_text(errors="replace")
    findings = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {}
    if code != 0:
        last = (output.strip().splitlines() or [""])[-1][:200]
        findings["ended"] = {"ok": False, "code": code, "last": last}
    return findings, output


if __name__ == "__main__":
    main()
