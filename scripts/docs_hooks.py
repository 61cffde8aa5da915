"""What the site shows otherwise than the repository: files outside docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

WHOLE = {"reference/changes.md": ("CHANGELOG.md", "../"), "validation/benchmarks.md": ("benchmarks/README.md", "../")}
"""Page to the file of the repository that it shows, and the way from the page to docs/."""


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Show a file of the repository whole, and name files outside docs/ where the repository links to them."""
    path = page.file.src_uri
    if path in WHOLE:
        source, up = WHOLE[path]
        markdown = (ROOT / source).read_text("utf-8")
        markdown = re.sub(r"\]\((?:\.\./)?docs/", f"]({up}", markdown)
    docs, here = ROOT / "docs", (ROOT / "docs" / path).parent

    def inside(link: re.Match[str]) -> str:
        target = (here / link[2].partition("#")[0]).resolve()
        return link[0] if docs in target.parents or link[2].startswith(("http", "#")) else link[1]

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)]+)\)", inside, markdown)
