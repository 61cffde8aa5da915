"""The report as one self-contained HTML page: no script, no network, everything from the user escaped."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import pandas as pd

from lightning_ifa.feature_report import FeatureReport
from lightning_ifa.report.summary import ADVICE, MEANING, verdict

MOST_ROWS = 200
HEAD = ("family", "verdict", "what the score is", "score", "z", "health", "note", "what to do")

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .75rem; text-align: left }
th { border-bottom: 2px solid #bbb } td { border-bottom: 1px solid #eee } img { max-width: 100% }
.ALARM { color: #b34700; font-weight: bold }
"""


def write_html(report: FeatureReport, path: Path, picture: bytes, title: str = "Integrated feature analysis") -> None:
    """Write the page.

    Args:
        report: The report.
        path: The file; replaced if it exists.
        picture: Its overview, a PNG file's content.
        title: The heading.
    """
    parts = [
        f"<h1>{escape(title)}</h1>",
        _verdicts(report),
        f'<img alt="overview" src="data:image/png;base64,{base64.b64encode(picture).decode("ascii")}">',
        "<h2>Outliers</h2>",
        _table(report.outliers),
        "<h2>Confounder suspects</h2>",
        _table(report.confounders),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style>{''.join(parts)}</html>"
    )
    partial = path.with_name(path.name + ".part")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def _verdicts(report: FeatureReport) -> str:
    rows = []
    for family, finding in report.findings.items():
        word = verdict(finding)
        advice = ADVICE[family] if finding.alarm else ""
        cells = (
            MEANING[family],
            f"{finding.score:.3f}",
            f"{finding.z:.1f}",
            f"{finding.health:.2f}",
            finding.note,
            advice,
        )
        rows.append(
            f'<tr><td>{family}</td><td class="{word.split()[0]}">{word}</td>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in HEAD)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _table(frame: pd.DataFrame) -> str:
    if frame.empty:
        return "<p>None.</p>"
    return frame.head(MOST_ROWS).to_html(index=False, border=0, escape=True, float_format="{:.3g}".format)
