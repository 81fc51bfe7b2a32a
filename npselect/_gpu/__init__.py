"""The GPU itself: memory, copies, launches, other libraries' arrays. No formulas, no operators."""
