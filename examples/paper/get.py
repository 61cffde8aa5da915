"""Print what to download for the paper's rows, under which licence, where to put it, and check what is there.

python -m examples.paper.get                                     # the list
python -m examples.paper.get --root data/paper                   # and checks data/paper/<row>, by each row's own reader
python -m examples.paper.get --real-root FOLDER                  # and checks the sets of the rows on real images
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from benchmarks.real.data import SOURCES
from lightning_ifa.errors import IFAError

from .results.real import REAL
from .results.rows import CONFIGS, ROWS


class Source(NamedTuple):
    """Where a published data set can be had."""

    address: str
    licence: str
    put: str


PUBLISHED = {
    "mnist": Source(
        "http://yann.lecun.com/exdb/mnist", "none stated; commonly given as CC BY-SA 3.0", "the four IDX files"
    ),
    "ilsvrc": Source(
        "https://www.image-net.org/download.php",
        "ImageNet's terms of access: research, not commercial",
        "train/, val/, Annotations/ and the synset words",
    ),
    "cats_dogs": Source("https://www.kaggle.com/c/dogs-vs-cats", "the competition's rules", "train/cat.0.jpg ..."),
    "rsna": Source(
        "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
        "the competition's rules: not commercial",
        "stage_2_train_images/, stage_2_train_labels.csv",
    ),
    "melanoma": Source("https://challenge2020.isic-archive.com", "CC BY-NC 4.0", "jpeg/train/*.jpg, train.csv"),
    "ultrasound": Source(
        "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        "none stated there; the article is CC BY 4.0",
        "benign/, malignant/, normal/, masks beside the images",
    ),
    "luna": Source(
        "https://luna16.grand-challenge.org",
        "LIDC-IDRI: CC BY 3.0",
        "subset0/ ... subset9/, candidates_V2.csv, annotations.csv",
    ),
    "esmira": Source("not public", "on request from its authors", "<patient>/<stack>.nii.gz, patients.csv"),
}
"""Row to its source; addresses and licences as their publishers state them, to be read there before use."""

LAYOUT = "index.csv (one line an image, with split and label) and data.npz (images, or jpeg with offsets; masks)"


def main() -> None:
    """Parse, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, help="folder with a folder for each row, of published files")
    parser.add_argument("--real-root", type=Path, help="folder of the sets of the rows on real images")
    chosen = parser.parse_args()
    print(listing(chosen.root, chosen.real_root))


def listing(root: Path | None = None, real_root: Path | None = None) -> str:
    """Give the list as Markdown, with a column of what was found where a folder is given."""
    head = ["row", "address", "licence", "put there", *(["found"] if root else [])]
    lines = [head, ["---"] * len(head)]
    for row in ROWS:
        if row in PUBLISHED:
            folder = (root or Path("ROOT")) / row
            found = [check_row(row, folder)] if root else []
            lines.append(
                [row, PUBLISHED[row].address, PUBLISHED[row].licence, f"{folder}: {PUBLISHED[row].put}", *found]
            )
    head = ["rows", "address and licence", "put there", *(["found"] if real_root else [])]
    sets = [head, ["---"] * len(head)]
    for source in dict.fromkeys(row.source for row in REAL.values()):
        folder = (real_root or Path("FOLDER")) / source
        rows = ", ".join(name for name, row in REAL.items() if row.source == source)
        sets.append([rows, SOURCES[source], f"{folder}: {LAYOUT}", *([check_set(folder)] if real_root else [])])
    tables = ["\n".join(f"| {' | '.join(line)} |" for line in table) for table in (lines, sets)]
    return f"Files as published (--root, --real ROW=FOLDER of the table)\n\n{tables[0]}\n\n" + (
        f"Sets of the rows on real images (--real-root)\n\n{tables[1]}"
    )


def check_row(row: str, folder: Path) -> str:
    """Let a row's own reader look at a folder: what it found, or what is missing or damaged."""
    if not folder.is_dir():
        return "not there"
    found: dict[str, Any] = yaml.safe_load((CONFIGS / f"{row}.yaml").read_text(encoding="utf-8"))["data"]
    module, _, name = found["class_path"].rpartition(".")
    data = getattr(import_module(module), name)(**(found["init_args"] | {"root": str(folder)}))
    try:
        data.setup("fit")
    except IFAError as error:
        return f"not usable: {error}"
    return f"{len(data.train)} training and {len(data.validation)} validation samples"


def check_set(folder: Path) -> str:
    """Look whether a set is complete, without decoding its images."""
    if not (folder / "index.csv").is_file() or not (folder / "data.npz").is_file():
        return "not there"
    try:
        index = pd.read_csv(folder / "index.csv")
        with np.load(folder / "data.npz") as stored:
            kept = len(stored["offsets"]) - 1 if "offsets" in stored.files else len(stored["images"])
    except (OSError, ValueError, KeyError) as error:
        return f"not usable: {error}"
    lacking = [name for name in ("split", "label") if name not in index]
    if lacking or kept != len(index):
        return f"not usable: {kept} images for {len(index)} lines; columns missing: {', '.join(lacking) or 'none'}"
    return f"{kept} images"


if __name__ == "__main__":
    main()
