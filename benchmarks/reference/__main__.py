"""Show that a change of the code changes no number: keep 25 analyses, change the code, compare to the last bit.

python -m benchmarks.reference keep FOLDER       # trains the networks, or reads them; writes FOLDER/reports.json
python -m benchmarks.reference compare FOLDER    # lists what differs, by case and name; exit code 1 if anything does
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from pathlib import Path

import numpy as np

from benchmarks.reference import cases
from lightning_ifa import analyze
from lightning_ifa.report.markdown import headline, summary
from lightning_ifa.report.tables import cams_table

FRAMES = ("samples", "confounders", "outliers", "overfitting_classes", "overfitting_features", "subpopulations")
COLUMNS = (
    "contributions", "activations", "cams", "logits", "predictions", "explained", "targets", "indices", "fingerprints",
)  # fmt: skip


def main():
    """Keep or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("keep", "compare"))
    parser.add_argument("folder", type=Path, help="folder of the networks and the reports")
    parser.add_argument("--only", nargs="*", choices=sorted(cases.CASES), help="names of cases; by default all")
    given = parser.parse_args()
    cases.folder, path = given.folder, given.folder / "reports.json"
    found = {name: analyzed(name) for name in given.only or cases.CASES}
    if given.what == "keep":
        path.write_text(json.dumps(found, indent=0), encoding="utf-8")
        print(f"{len(found)} analyses kept in {path}")
        return
    kept = json.loads(path.read_text(encoding="utf-8"))
    differences = [line for name, one in found.items() for line in differing(name, kept[name], one)]
    print(*differences, f"{len(differences)} differences in {len(found)} analyses", sep="\n")
    sys.exit(bool(differences))


def analyzed(name):
    """Everything that one analysis gives, as text that JSON keeps; floating-point numbers bit by bit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are part of the report
        try:
            report = analyze(**cases.CASES[name]())
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
    found = {"metrics": exact(report.metrics), "warnings": list(report.warnings), "headline": headline(report)}
    found |= {"summary": summary(report).split("\n"), "scale": exact(report.scale.to_dict())}
    found |= {
        family: exact(vars(finding) | {"tables": list(finding.tables)}) for family, finding in report.findings.items()
    }
    found |= {name: frame(getattr(report, name)) for name in FRAMES} | {"cams": frame(cams_table(report))}
    found["importance"] = {name: array(values) for name, values in vars(report.importance).items()}
    for split, table in report.tables.items():
        found[f"{split} table"] = {name: array(getattr(table, name)) for name in COLUMNS}
    found["probes"] = [array(table.cams) for table in (report.probes.table, report.probes.predicted)]
    found["images"] = {f"{split} {row}": array(image) for (split, row), image in report.gallery.items()}
    return found


def exact(value):
    """A value as text or nested text, without loss."""
    if isinstance(value, dict):
        return {str(name): exact(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [exact(entry) for entry in value]
    return float(value).hex() if isinstance(value, (float, np.floating)) else str(value)


def frame(table):
    """A DataFrame's columns."""
    return {str(name): exact(list(table[name])) for name in table}


def array(values):
    """Type, shape and digest of an array."""
    values = np.ascontiguousarray(values)
    return f"{values.dtype} {values.shape} {hashlib.sha256(values.tobytes()).hexdigest()[:16]}"


def differing(name, kept, found):
    """One line for each entry that differs."""
    if isinstance(kept, dict) and isinstance(found, dict):
        for key in sorted({*kept, *found}):
            yield from differing(f"{name}, {key}", kept.get(key, "nothing"), found.get(key, "nothing"))
    elif isinstance(kept, list) and isinstance(found, list) and len(kept) == len(found):
        for number, pair in enumerate(zip(kept, found, strict=True)):
            yield from differing(f"{name}, {number}", *pair)
    elif kept != found:
        yield f"{name}: {str(kept)[:100]} was, {str(found)[:100]} is"


if __name__ == "__main__":
    main()
