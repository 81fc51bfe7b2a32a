"""The GPU as a place: memory, copies, launches, other libraries' arrays. No formulas, no operators."""
