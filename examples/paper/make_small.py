"""Write small stand-ins for the paper's data sets, in their published formats.

python -m examples.paper.make_small --root data/small                        # all rows
python -m examples.paper.make_small --root data/marked --confounded rsna     # one, with its mark gone with the class
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from .small import cats_dogs, esmira, ilsvrc, luna, melanoma, mnist, rsna, ultrasound

Writer = Callable[[Path, int, bool, int], None]

WRITERS: dict[str, Writer] = {
    module.__name__.rpartition(".")[2]: module.write
    for module in (mnist, ilsvrc, cats_dogs, rsna, melanoma, ultrasound, luna, esmira)
}
COUNT = 480


def make_small(root: Path, row: str, *, count: int = COUNT, confounded: bool = False, seed: int = 0) -> Path:
    """Write one row's stand-in to ``root / row``; the same arguments give the same files.

    Args:
        root: Folder for all rows.
        row: One of ``WRITERS``.
        count: Samples.
        confounded: Whether the planted mark travels with the class; it is there in either case.
        seed: Of every draw.

    Raises:
        FileExistsError: Something lies there already.
    """
    folder = root / row
    folder.mkdir(parents=True)
    WRITERS[row](folder, count, confounded, seed)
    return folder


def main() -> None:
    """Write the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", choices=[*WRITERS, []], default=[])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--confounded", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    for row in chosen.rows or WRITERS:
        print(make_small(chosen.root, row, count=chosen.count, confounded=chosen.confounded, seed=chosen.seed))


if __name__ == "__main__":
    main()
