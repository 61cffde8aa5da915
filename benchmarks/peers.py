"""Time and memory of contributions and maps at the last block: this package, its peers, the bare forward pass.

    python -m benchmarks.peers                              # everything
    .zoo/bin/python -m benchmarks.peers --nets ResNet-18 ViT    # with pytorch-grad-cam, which needs torchvision
    python -m benchmarks.peers --nets "ResNet-18" --rounds 5

Time: all methods run in every round, in shuffled order, in one process; a ratio is taken within its round. The clock
is the process's CPU time, which other processes do not change; with one thread it is what a user waits for.
Memory: the peak of the resident set over the idle process (network and input already made), in a fresh process for
each cell, over a few batches, the last result held while the next is made. The allocator gives every tensor back as
soon as it is freed (``ALLOCATOR``), in all cells alike, so that the resident set is what a method holds; left to
itself it keeps some, by chance, and a cell repeats to within 10 MiB only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.networks import CASES, Case
from benchmarks.peer_methods import METHODS, fitting, largest_differences

FLOOR = "bare forward"
EQUAL = 1e-5
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Environment of a memory cell (glibc): anything larger is mapped on its own, and unmapped when it is freed."""

LEFT_OUT = (
    "pytorch-grad-cam is left out: it imports cv2 and torchvision unconditionally, neither of which is installed here. "
    '"full backward" is the least that its GradCAM does: a forward pass and a backward pass into every weight.'
)


def classes_for(x: Tensor) -> Tensor:
    """One class a sample that every network has."""
    return torch.arange(len(x)) % 2


def times(case: Case, rounds: int) -> pd.DataFrame:
    """CPU seconds of one batch, ``rounds`` rows, one column a method; a first round is thrown away."""
    model, x = case.made(), case.inputs()
    classes, rng, rows = classes_for(x), np.random.default_rng(0), []
    names = fitting(case)
    for _ in range(rounds + 1):
        row = {}
        for name in rng.permutation(names):
            with METHODS[name](model, case) as run:
                gc.collect()
                began = time.process_time()
                run(x, classes)
                row[name] = time.process_time() - began
        rows.append(row)
    return pd.DataFrame(rows[1:])[names]


def as_ratios(seconds: pd.DataFrame) -> dict[str, str]:
    """Median and quartiles of each method's time over the bare forward pass's, by method."""
    ratios = seconds.div(seconds[FLOOR], axis=0)
    low, middle, high = (ratios.quantile(q) for q in (0.25, 0.5, 0.75))
    return {name: f"{middle[name]:.2f} ({low[name]:.2f}-{high[name]:.2f})" for name in ratios}


def growth(case: Case, method: str, calls: int) -> float:
    """Peak of the resident set over the idle process, MiB, of some batches in this process."""
    model, x = case.made(), case.inputs()
    classes = classes_for(x)
    with ExitStack() as stack:
        run = stack.enter_context(METHODS[method](model, case))
        gc.collect()
        idle = _reset_peak()
        held: object = None
        for _ in range(calls):
            held = run(x, classes)
        peak = _status("VmHWM")
    del held
    return (peak - idle) / 1024


def growth_in_fresh_process(net: str, method: str, options: argparse.Namespace) -> float:
    """Run ``growth`` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.peers", "--cell", net, method]
    command += ["--batch", str(options.batch), "--calls", str(options.calls), "--threads", str(options.threads)]
    setting = os.environ | ALLOCATOR
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=setting)  # noqa: S603 - our own
    if done.returncode:
        raise RuntimeError(f"{net}, {method}: {done.stderr}")
    return float(done.stdout)


def _reset_peak() -> int:
    """Hand free memory back and start a new peak; gives the present size, KiB. Linux with glibc only."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1])


def table(cells: Callable[[str, Case], dict[str, str]], cases: dict[str, Case]) -> str:
    """Markdown: methods down, networks across."""
    columns = {name: cells(name, case) for name, case in cases.items()}
    frame = pd.DataFrame(columns).reindex([name for name in METHODS if any(name in c for c in columns.values())])
    lines = [["", *frame.columns], ["---"] * (1 + len(frame.columns))]
    lines += [[str(name), *frame.loc[name].fillna("-")] for name in frame.index]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def differences(case: Case) -> dict[str, str]:
    """Largest difference of each peer from this package, as a share of the largest value, by method."""
    model, x = case.made(), case.inputs()
    found = largest_differences(model, case, x, classes_for(x))
    far = {name: value for name, value in found.items() if not value <= EQUAL}
    if far:
        raise RuntimeError(f"the methods do not agree, so their times do not compare: {far}")
    return {name: f"{value:.0e}" for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nets", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--parts", nargs="+", choices=("numbers", "time", "memory"), default=("numbers", "time", "memory")
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=4, help="batches of a memory cell")
    parser.add_argument("--batch", type=int, default=0, help="instead of each network's own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cell", nargs=2, metavar=("NET", "METHOD"), help="print one memory cell and stop")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = {name: replace(case, batch=options.batch or case.batch) for name, case in CASES.items()}
    if options.cell:
        print(growth(cases[options.cell[0]], options.cell[1], options.calls))
        return
    cases = {name: cases[name] for name in options.nets}
    left_out = "" if "pytorch-grad-cam GradCAM" in METHODS else f"\n\n{LEFT_OUT}"
    print(f"{_where(options.threads)}{left_out}\n\nInputs a batch and size of one: {_sizes(cases)}.")
    if "numbers" in options.parts:
        print("\nLargest difference from this package, share of the largest value\n")
        print(table(lambda name, case: differences(case), cases), flush=True)
    if "time" in options.parts:
        print(f"\nTime over the bare forward pass: median (quartiles) of {options.rounds} rounds\n")
        print(table(lambda name, case: as_ratios(times(case, options.rounds)), cases), flush=True)
    if "memory" in options.parts:
        print(f"\nPeak memory over the idle process, {options.calls} batches, MiB (over the bare forward pass)\n")
        print(table(lambda name, case: _memory(name, case, options), cases), flush=True)


def _memory(net: str, case: Case, options: argparse.Namespace) -> dict[str, str]:
    cells = {method: growth_in_fresh_process(net, method, options) for method in fitting(case)}
    return {method: f"{value:.0f} ({value - cells[FLOOR]:+.0f})" for method, value in cells.items()}


def _where(threads: int) -> str:
    packages = ", ".join(f"{name} {_version(name)}" for name in ("torch", "captum", "torchcam", "grad-cam"))
    return f"{packages}; Python {platform.python_version()}, CPU, {threads} of {os.cpu_count()} threads."


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed, left out"


def _sizes(cases: dict[str, Case]) -> str:
    return ", ".join(f"{name} {case.batch} of {' x '.join(map(str, case.shape))}" for name, case in cases.items())


if __name__ == "__main__":
    main()
