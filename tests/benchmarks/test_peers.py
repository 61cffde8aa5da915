"""The comparison with peers runs from end to end, measures what it says, and refuses to time unequal numbers."""

import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import peer_methods, peers
from benchmarks.networks import CASES, ViT

ROOT = Path(__file__).parents[2]
SMALL = {"28 x 28 CNN": (1, 28, 28), "3-D CNN": (1, 16, 16, 16), "ResNet-18": (3, 64, 64), "ResNet-50": (3, 64, 64)}
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")


def small(name):
    if name == "ViT":
        return replace(CASES[name], batch=2, shape=(3, 64, 64), build=lambda: ViT(64))
    return replace(CASES[name], batch=2, shape=SMALL[name])


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks.peers", "--nets", "28 x 28 CNN", "--batch", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_numbers_and_times_are_printed():
    printed = run("--rounds", "1", "--parts", "numbers", "time")
    numbers, seconds = printed.split("\n\n|")[1:]
    assert "pytorch-grad-cam is left out" in printed
    rows = [row.split(" | ")[0] for row in seconds.split("\n")]
    assert {"| bare forward", "| lightning_ifa", "| full backward"} <= set(rows)
    assert "| bare forward | 1.00 (1.00-1.00) |" in seconds
    assert "| full backward | 0e+00 |" in numbers


@ON_LINUX
@pytest.mark.slow
def test_memory_is_printed():
    printed = run("--calls", "1", "--parts", "memory")
    assert re.search(r"\| bare forward \| \d+ \(\+0\) \|", printed)
    assert re.search(r"\| lightning_ifa \| \d+ \([+-]\d+\) \|", printed)


@pytest.mark.parametrize("name", CASES)
def test_peers_give_our_numbers_on_every_network(name):
    case = small(name)
    model, x = case.made(), case.inputs()
    found = peer_methods.largest_differences(model, case, x, peers.classes_for(x))
    assert "full backward" in found
    assert max(found.values()) < 1e-5
    assert not any(module._forward_hooks for module in model.modules())


def test_different_numbers_are_not_timed(monkeypatch):
    @contextmanager
    def wrong(model, case):
        with peer_methods.full_backward(model, case) as run:
            yield lambda x, classes: peer_methods.Found(gradcam=1.001 * run(x, classes).gradcam)

    monkeypatch.setitem(peer_methods.METHODS, "wrong", wrong)
    with pytest.raises(RuntimeError, match=r"do not agree.*'wrong'"):
        peers.differences(small("28 x 28 CNN"))


def test_times_are_interleaved_and_ratios_taken_within_a_round():
    seconds = peers.times(small("28 x 28 CNN"), 2)
    assert seconds.shape == (2, len(peer_methods.METHODS))
    assert (seconds.to_numpy() > 0).all()
    seconds["lightning_ifa"] = seconds["bare forward"] * [2, 4]
    assert peers.as_ratios(seconds)["lightning_ifa"] == "3.00 (2.50-3.50)"


HOARDER = """
import torch
from contextlib import contextmanager
from benchmarks import peers

@contextmanager
def hoarder(model, case):
    yield lambda x, classes: torch.ones(2**23)  # 32 MiB

peers.METHODS["hoarder"] = hoarder
print(peers.growth(peers.CASES["28 x 28 CNN"], "hoarder", CALLS))
"""


@ON_LINUX
@pytest.mark.parametrize(("calls", "held"), [pytest.param(1, 32, marks=pytest.mark.slow), (4, 64)])
def test_memory_sees_what_a_method_holds_and_that_the_last_result_lives_on(calls, held):
    command = [sys.executable, "-c", HOARDER.replace("CALLS", str(calls))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert float(done.stdout) == pytest.approx(held, abs=3), done.stderr


@pytest.mark.parametrize(("name", "parameters"), [("ResNet-18", 11_689_512), ("ResNet-50", 25_557_032)])
def test_the_resnets_have_the_published_size(name, parameters):
    assert sum(p.numel() for p in CASES[name].made().parameters()) == parameters
