"""Rows that are split over machines, or over time: what each part computes and sends, with the bits of the whole.

The candidates of each row are dealt out in shards: this one has the columns from `start` on. A shard computes from its
own logits, and from what the others send; how that is sent is the caller's business. Arrays go in and come out::

    mine = select(logits, start=start)                the shard's largest logit and where it is: some bytes a row
    selected = merge(mine, theirs)                    ... of all shards, in any order and grouping
    mask = forward(logits, selected, start=start)     the shard's part of the one-hot

    g_m = at(grad_mask, selected, start=start)        to be added up over the shards: all but one of them have 0
    part = sums(logits, selected, temp, grad_mask, g_m, start=start)     two numbers for each 1,024 columns of a row
    totals = total([part of the first shard, ..., part of the last])
    grad_logits = backward(grad_mask, logits, selected, totals, g_m, temp, start=start)

With m the selected candidate, whose logit is the row's largest, a segment of 1,024 columns adds::

    e_i = exp((logits_i - logits_m) / temp)         s = sum_i e_i          d s = sum_i e_i h_i,   h_i = g_i - g_m

and the results are those of `npselect.straight_through`, whose sums run over the same segments, added up from the first
to the last. So every bit is that of the call on whole rows, however these are split, if each shard begins at a multiple
of 1,024. The gradient of the temperature takes one exchange more: `temp_sums`, `total`, `backward_temp`.

The other operators:

- `npselect.gumbel_softmax`: `noise` in every call; `npselect.noise.gumbel` draws that of a block (`within`).
- `npselect.categorical`: noise in `select` alone for the mask; for the gradient, `select` without noise.
- `npselect.reinmax`: both of these, `sums` at temperature 1 and at `temp`, and `reinmax`.

All of this runs on the host, on the kernels of the tier "cpu".
"""

from npselect.sharded._choice import Selected, at, forward, index, merge, select
from npselect.sharded._results import backward, reinmax, soft, sums, total
from npselect.sharded._temperature import backward_temp, temp_sums

__all__ = [
    "Selected",
    "at",
    "backward",
    "backward_temp",
    "forward",
    "index",
    "merge",
    "reinmax",
    "select",
    "soft",
    "sums",
    "temp_sums",
    "total",
]
