"""python -m zoo.policy.train --data episodes.npz --out runs/mine --steps 20000"""

import sys

from zoo.training.command import main

if __name__ == "__main__":
    sys.exit(main("policy/pusht-keypoints"))
