"""Rows that are split over processes, in PyTorch
==============================================

Each process has some columns of the logits; `torch.distributed` sends what `npselect.sharded` asks for. Run it with
``torchrun --nproc-per-node 2 examples/torch_sharded.py``: it compares every bit with the call on whole rows.
"""

from functools import reduce

import numpy as np
import torch.distributed as dist

from npselect import sharded, straight_through


def exchanged(mine):
    """What all processes have, in the order of their columns."""
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, mine)
    return parts


def forward_and_backward(logits, grad_mask, temp, start):
    """The columns of the mask, and of the gradient, that are this process'."""
    selected = reduce(sharded.merge, exchanged(sharded.select(logits, start=start)))
    g_m = sum(exchanged(sharded.at(grad_mask, selected, start=start)))
    totals = sharded.total(exchanged(sharded.sums(logits, selected, temp, grad_mask, g_m, start=start)))
    mask = sharded.forward(logits, selected, start=start)
    return mask, sharded.backward(grad_mask, logits, selected, totals, g_m, temp, start=start)


def main():
    """Two shards of 50,257 columns, as of a vocabulary."""
    dist.init_process_group("gloo")
    logits, grad_mask = np.random.default_rng(0).standard_normal((2, 4, 50_257), np.float32)
    edges = [0, 24_576, 50_257]
    here = slice(edges[dist.get_rank()], edges[dist.get_rank() + 1])
    mask, grad_logits = forward_and_backward(logits[:, here], grad_mask[:, here], 0.6, here.start)
    assert np.array_equal(mask, straight_through.forward(logits, 0.6)[:, here])
    assert np.array_equal(grad_logits, straight_through.backward(grad_mask, logits, 0.6)[:, here])
    print(f"process {dist.get_rank()}: every bit is that of the unsplit call")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
