"""Writes the reference pages that are nothing but the code's own words; a test says when they have to be written again.

.venv/bin/python scripts/reference.py
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from lightning_ifa.cli import main as cli
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"

EXAMPLES = {
    "analyze": "lightning-ifa analyze --checkpoint last.ckpt --config config.yaml",
    "compare": "lightning-ifa compare RUN RUN --html comparison.html",
    "doctor": "lightning-ifa doctor --model mynets:Net --data mydata:loaders",
    "fit": "lightning-ifa fit --config config.yaml --trainer.max_epochs 3",
    "gate": "lightning-ifa gate models:/leafnet/3 --policy configs/gate.yaml --promote champion",
    "repair": "lightning-ifa repair --checkpoint last.ckpt --config config.yaml --suspect site",
    "sync": "lightning-ifa sync ifa",
    "validate": "lightning-ifa validate --config config.yaml --ckpt_path last.ckpt",
    "view install": "lightning-ifa view install my-experiment",
}

COMMANDS = """# Command line

*For whoever works from a shell. Every command and option; `lightning-ifa COMMAND --help` says the same.*

Exit codes of all commands: 0 yes or done, 1 no (the gate refused, or no repair helped), 2 could not decide.

{}
## Environment variables

| variable | what it does |
|---|---|
| `LIGHTNING_IFA` | on (`1`): the callback joins every Lightning training of the process |
| `LIGHTNING_IFA_CONFIG` | file with the callback's options for that |
| `LIGHTNING_IFA_OFFLINE` | on: no server is asked; everything waits for `lightning-ifa sync` |
| `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`, `MLFLOW_RUN_ID` | MLflow's own: store, experiment and run |
"""

OPTIONS = """# Options

*For whoever sets an option of the callback, in Python, in a configuration, or by `LIGHTNING_IFA_CONFIG`.
`analyze(...)` takes those of the same name. A misspelt name or value is refused at once, with the nearest choice.*

| option | default | what it does |
|---|---|---|
{}
"""


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """File to its text."""
    return {"command_line.md": COMMANDS.format("\n".join(_commands(cli, ""))), "options.md": _options()}


def _commands(command: click.Command, name: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for part in sorted(command.commands):
            yield from _commands(command.commands[part], f"{name} {part}".strip())
        return
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", (command.help or "").replace("\f", "")))
    example = f"\n```sh\n{EXAMPLES[name]}\n```\n" if name in EXAMPLES else ""
    yield f"## {name}\n\n" + "\n\n".join(filter(None, paragraphs)) + f"\n{example}"
    options = [part for part in command.params if isinstance(part, click.Option)]
    rows = [f"| `{_spelling(option)}` | {option.help}{' Required.' if option.required else ''} |" for option in options]
    yield (
        "\n".join(["| option | what it does |", "|---|---|", *rows, ""])
        if rows
        else "Its options are LightningCLI's.\n"
    )


def _spelling(option: click.Option) -> str:
    kind = "" if option.is_flag else option.metavar or ("FOLDER" if "older" in str(option.help) else "FILE")
    return f"{option.opts[0]} {kind}".strip()


def _options() -> str:
    words = inspect.getdoc(IntegratedFeatureAnalysis) or ""
    section = words[words.index("Args:") : words.index("Raises:")]
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section, re.DOTALL | re.MULTILINE)
    known = inspect.signature(IntegratedFeatureAnalysis.__init__).parameters
    rows = [f"| `{name}` | `{known[name].default!r}` | {_cell(text)} |" for name, text in found]
    return OPTIONS.format("\n".join(rows))


def _cell(text: str) -> str:
    """A docstring's words in one cell of a table."""
    line = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
    return re.sub(r"docs/(\w+\.md)", r"[\1](../\1)", line)


if __name__ == "__main__":
    main()
