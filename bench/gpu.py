"""All there is to measure on a machine with an NVIDIA GPU, in one command that a failure does not stop.

Run ``python bench/gpu.py --out DIR``; it needs no installation. ``--help`` tells the rest, and the package `gpu` beside
this file what is in which file.
"""

import sys

from gpu.command import main

if __name__ == "__main__":
    sys.exit(main())
