"""The process in which a registered model is analysed anew; started by ``isolated``, one JSON object on its output."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any


def main() -> None:
    """Analyse what the argument asks for, and write the measurement, or why there is none."""
    request = json.loads(sys.argv[1])
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what data and model print is no answer
    _limit(request["memory"])
    os.chdir(request["cwd"])
    try:
        content: dict[str, Any] = measure(request["files"], request["data"], request["model"])
    except BaseException as error:  # whatever foreign code throws
        content = {"error": f"{error}" if _is_own(error) else f"{type(error).__name__}: {error}"}
    json.dump(content, answer, allow_nan=False)
    answer.close()
    os._exit(1 if "error" in content else 0)  # no foreign code at the end either


def measure(files: str, data: str, model: str | None) -> dict[str, Any]:
    """Load data and model, analyse, and give the measurement as plain values."""
    from lightning_ifa.model.weights_digest import digest_weights
    from lightning_ifa.offline.reanalysis import analyze_loaded, load_data, load_registered, load_weights_only
    from lightning_ifa.version import __version__

    loaders = load_data(data)
    module = load_weights_only(files, model) if model else load_registered(files)
    weights = digest_weights(module.state_dict())
    report = analyze_loaded(module, loaders)
    table = report.tables["validation"]
    return {
        "metrics": {key: float(value) for key, value in report.metrics.items() if math.isfinite(value)},
        "digest": report.digest,
        "layer": table.layer,
        "method": table.cam,
        "version": __version__,
        "weights": weights,
    }


def _is_own(error: BaseException) -> bool:
    from lightning_ifa.errors import IFAError

    return isinstance(error, IFAError)


def _limit(memory: int) -> None:
    """Bound the memory, and write no core; for good, since a limit once lowered stays."""
    try:
        import resource
    except ImportError:  # Windows: the time is bounded, the memory is not
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


if __name__ == "__main__":
    main()
