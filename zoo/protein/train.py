"""python -m zoo.protein.train --data DIR --out runs/mine --steps 20000"""

import sys

from zoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "protein/backbone-ddpm", *sys.argv[1:]]))
