"""The order of every sum over a row: a function of K alone, and the same on every target.

- the columns come in segments of 1024; in a segment, column j belongs to lane j mod 128;
- each lane adds its (up to eight) terms in rising j;
- the 128 lanes fold in fours, (0 + 2) + (1 + 3), and the 32 sums by halves: 16, 8, 4, 2, 1;
- the segments' sums are added in rising order.

Lanes without a column hold 0. Adding 0 changes nothing, as no sum is -0: the last sum of a fold has 0 added.
"""

__all__ = ["LANES", "SEGMENT"]

SEGMENT = 1024
LANES = 128
