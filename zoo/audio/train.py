"""python -m zoo.audio.train --data DIR --out runs/mine --steps 20000"""

import sys

from zoo.training.command import main

if __name__ == "__main__":
    sys.exit(main("audio/spec-ddpm"))
