"""Write config.json and judge.json of model and judge folders anew in the format of today, with the hashes of their files.

    python benchmarks/seal.py               all packaged models and judges
    python benchmarks/seal.py FOLDER ...    these

Nothing else in a folder changes: the weights stay, byte for byte. A model is first loaded and compared with its golden output.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from zoo import files
from zoo.contract.registry import CHECKPOINTS
from zoo.evaluation import judge
from zoo.model import checkpoint
from zoo.model.model import Model


def seal(folder: Path) -> Path:
    """Renew the hashes of a folder of a model or a judge; returns the file that holds them."""
    if (folder / judge.CARD).exists():
        return files.reseal(folder / judge.CARD, [judge.WEIGHTS], format_version=judge.FORMAT_VERSION)
    model = Model.from_folder(folder)
    model.verify()
    return files.reseal(folder / files.CONFIG, checkpoint.HASHED, format_version=checkpoint.FORMAT_VERSION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    found = [p.parent for name in (files.CONFIG, judge.CARD) for p in sorted(CHECKPOINTS.glob(f"*/*/{name}"))]
    for folder in parser.parse_args().folders or found:
        print(seal(folder))


if __name__ == "__main__":
    main()
