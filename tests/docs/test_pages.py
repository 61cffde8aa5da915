"""What the documents say is there: links, anchors, commands, metric keys, artifacts, options, policy fields."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from models import PoolNet, loader

import lightning_ifa
from lightning_ifa import __all__ as public
from lightning_ifa import analyze
from lightning_ifa.cli import main
from lightning_ifa.gate.model_metrics import CONDITIONS, DIGEST_TAG, STEP_TAG
from lightning_ifa.gate.policy import Bound, Champion, Limit, Policy, Worsening
from lightning_ifa.gate.registry import POLICY_TAG, SUBJECT_TAG, VERDICT_TAG
from lightning_ifa.report import files
from lightning_ifa.tracking import compare, job_writer
from lightning_ifa.tracking.model_writer import BEST_TAG
from lightning_ifa.tracking.weights import WEIGHTS_TAG

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "scripts"))

from reference import pages  # noqa: E402

PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "benchmarks" / "README.md"])
REFERENCE = {path.stem: path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md")}
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def slug_of(heading):
    """The anchor of a heading, as the site and code hosts make it."""
    words = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower())
    return re.sub(r"[\s]+", "-", words)


def anchors(path):
    return {
        slug_of(line.lstrip("# ")) for line in FENCE.sub("", path.read_text("utf-8")).splitlines() if line[:1] == "#"
    }


def broken(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", path.read_text("utf-8"))):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_anchor_exists(path):
    assert list(broken(path)) == []


def test_every_document_that_the_code_names_exists():
    named = {
        (path.relative_to(ROOT), page)
        for folder in ("lightning_ifa", "benchmarks", "configs", "examples", "scripts")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".yml", ".toml", "") and path.is_file()
        for page in re.findall(r"docs/[\w/]+\.md", path.read_text("utf-8", errors="ignore"))
    }
    assert named
    assert [each for each in named if not (ROOT / each[1]).exists()] == []


def test_each_page_says_whom_it_serves():
    for path in DOCS.rglob("*.md"):
        if path.stem in ("changes", "benchmarks", "paper"):
            continue
        first = path.read_text("utf-8").split("\n\n")[1]
        assert first.startswith("*For who"), path


def commands(text):
    for line in re.findall(r"^ *(lightning-ifa [^\n]*)", text.replace("\\\n", " "), re.MULTILINE):
        yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_option_exists(path):
    for words in commands(path.read_text("utf-8")):
        command, rest = main, words
        while isinstance(command, click.Group) and rest[:1] and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        known = {name for option in command.params for name in option.opts} | {"--help"}
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        own = {"fit", "validate"} & set(words[:1])
        assert not isinstance(command, click.Group) or given == {"--help"} or not rest, words
        assert own or given <= known, words


def test_the_generated_pages_are_those_of_the_code():
    for name, text in pages().items():
        assert REFERENCE[Path(name).stem] == text, f"{name}: run .venv/bin/python scripts/reference.py"


def test_every_metric_is_explained():
    listed = set(re.findall(r"`(ifa/[\w/<>]+)`", REFERENCE["metrics"]))
    validation, train = loader(40, seed=2), loader(40, seed=1)
    known = pd.DataFrame({"site": ["a", "b"] * 20, "group": range(40)})
    regions = {"validation": lambda index: np.arange(144).reshape(12, 12) % 12 < 6}
    report = analyze(PoolNet(), validation, train, metadata={"validation": known, "train": known}, regions=regions)
    found = {re.sub(r"^ifa/health/\w+", "ifa/health/<indicator>", key) for key in report.metrics}
    for name in ("score", "z", "detectable"):
        listed |= {f"ifa/{family}/{name}" for family in report.findings}
    assert found - listed == set()
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "lightning_ifa").rglob("*.py"))
    kinds = {"mislabelled_share", "corrupted_share", "foreign_share", "atypical_share"}  # named by their kind
    outside = {"outside_share", "outside_positive", "outside_area"}
    for key in listed - {"ifa/<indicator>/z"}:
        name = key.rpartition("/")[2]
        assert name in kinds | outside or f'"{name}"' in sources or f"/{name}" in sources or "<" in key, key


def test_every_artifact_and_tag_is_explained():
    text = REFERENCE["artifacts"]
    written = {value for name, value in vars(files).items() if name.endswith("_FILE")}
    written |= {compare.CHANGES_FILE, compare.PICTURE_FILE, compare.PAGE_FILE}
    written |= {job_writer.SHEET_KEY, job_writer.PROBE_KEY, job_writer.OWN_MAP_KEY}
    tags = {*CONDITIONS.values(), DIGEST_TAG, STEP_TAG, BEST_TAG, WEIGHTS_TAG, VERDICT_TAG, POLICY_TAG, SUBJECT_TAG}
    assert [name for name in written | tags if name not in text] == []


def test_every_field_of_a_policy_is_explained():
    text = REFERENCE["policy"]
    fields = {name for kind in (Policy, Champion, Limit, Bound, Worsening) for name in kind.model_fields}
    assert [name for name in fields if f"`{name}`" not in text] == []
    listed = set(re.findall(r"^\| `(\w+)` ", text, re.MULTILINE))
    assert listed <= fields


def test_every_public_name_has_an_example_that_runs():
    """In its docstring, where little is needed; what needs a trainer or a server, on a page that is run."""
    run = "\n".join(path.read_text("utf-8") for path in [*(DOCS / "tutorials").glob("*.md"), DOCS / "get_started.md"])
    told = {name for name in public if ">>>" in (getattr(lightning_ifa, name).__doc__ or "")}
    told |= {name for name in public if re.search(rf"\b{name}(\.gate)?\(", run)}
    assert set(public) - told == set()


def test_every_public_name_is_in_the_reference():
    text = REFERENCE["python"]
    inside = {"IFAError", "IFAWarning"}  # of lightning_ifa.errors, which stands there whole
    assert [name for name in public if name not in inside and not re.search(rf"\b{name}$", text, re.MULTILINE)] == []
