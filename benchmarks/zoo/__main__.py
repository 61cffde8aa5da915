"""Print, for every architecture, the layer and the grid that are found, and how far the numbers are from autograd's."""

from __future__ import annotations

import sys
import time
import warnings
from importlib import import_module

import torch

from benchmarks.zoo.entry import Entry
from lightning_ifa.errors import IFAError
from lightning_ifa.model.activation_capture import ActivationCapture
from lightning_ifa.model.layer_search import find_layer
from lightning_ifa.model.outputs import output_tensor
from lightning_ifa.model.target_layer import TargetLayer, first_output

LIBRARIES = ("transformers", "monai")


def judge(entry: Entry) -> list[str]:
    """Give one row of the table."""
    torch.manual_seed(0)
    model, x = entry.build().eval(), torch.randn(entry.shape)
    start = time.process_time()
    try:
        target = find_layer(model, x).target
        seconds = time.process_time() - start
        A, difference = compare_with_autograd(model, target, x)
    except IFAError as error:
        return [
            entry.name,
            "refused",
            str(entry.layer),
            f"as expected: {entry.reason}" if entry.layer is None else str(error),
        ]
    grid = tuple(A.shape[2:])
    verdict = (
        "ok" if (target.name, grid) == (entry.layer, entry.grid) else f"WRONG, expected {entry.layer} {entry.grid}"
    )
    return [entry.name, verdict, f"{target.name} {grid}", entry.reason, f"{difference:.0e}", f"{seconds:.1f}"]


def compare_with_autograd(model: torch.nn.Module, target: TargetLayer, x: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Give the activation at the layer, and the largest difference of gradient times activation, as a share."""
    with ActivationCapture(model, target) as capture:
        A, G = capture.gradient(output_tensor(capture.forward(x))[:, 0])
    if target.function is not None:
        return A, float("nan")
    kept: list[torch.Tensor] = []
    calls: list[int] = []

    def keep(module: object, args: object, output: object) -> None:
        calls.append(len(calls))
        if target.is_at(calls[-1]):
            tensor = first_output(output)
            tensor.retain_grad()
            kept.append(tensor)

    handle = target.module.register_forward_hook(keep)
    output_tensor(model(x.clone().requires_grad_()))[:, 0].sum().backward()
    handle.remove()
    gradient = kept[0].grad
    assert gradient is not None
    expected = target.read(kept[0].detach()) * target.read(gradient)
    return A, float((A * G - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def main() -> None:
    """Print the table; names of architectures choose among them."""
    warnings.simplefilter("ignore")
    print("| library | model | verdict | layer and grid | reason | difference | CPU s |\n|" + " --- |" * 7)
    for library in LIBRARIES:
        for entry in import_module(f"benchmarks.zoo.{library}_models").ENTRIES:
            if len(sys.argv) > 1 and entry.name not in sys.argv[1:]:
                continue
            print("| " + " | ".join([library, *judge(entry)]) + " |", flush=True)


if __name__ == "__main__":
    main()
