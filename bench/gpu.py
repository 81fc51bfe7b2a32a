"""All there is to measure on a machine with an NVIDIA GPU, in one command that a failure does not stop.

Run ``python bench/gpu.py --out DIR``; it needs no installation. ``--help`` tells the rest, and `gpu_sections` what is
in which file.
"""

import sys

from gpu_sections.command import main

if __name__ == "__main__":
    sys.exit(main())
