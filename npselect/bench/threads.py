"""The same number of threads for every peer, in one place."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from npselect._threads import VARIABLE, thread_count
from npselect.testing.aliases import Tensor

__all__ = ["OTHERS", "VARIABLES", "configure", "numbers", "thread_count", "threads_are"]

VARIABLES = (
    VARIABLE,  # npselect, read at every call
    "OMP_NUM_THREADS",  # PyTorch, compiled or not, read when it is loaded
    "NPROC",  # XLA, behind JAX: the size of its pool, read when it starts
    "TF_NUM_INTRAOP_THREADS",  # TensorFlow, read when it starts
    "TF_NUM_INTEROP_THREADS",
)
"""What is set to the number of threads. NumPy and SciPy compute all of this in one thread, and can do no other."""


OTHERS = {
    "OMP_WAIT_POLICY": "passive",  # PyTorch's threads wait asleep, like all others', not taking time from who is next
    "TF_CPP_MIN_LOG_LEVEL": "3",  # TensorFlow has a page of remarks on stderr
}
"""What is set as well, unless it is set already."""


@contextmanager
def threads_are(count: int) -> Iterator[None]:
    """Set the variables that the packages read, and set them back afterwards.

    A framework that has started already keeps its number, unless `configure` can change it.
    """
    wanted = {**dict.fromkeys(VARIABLES, str(count)), **{name: os.environ.get(name, to) for name, to in OTHERS.items()}}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def configure(framework: Tensor) -> None:
    """Tell a framework that has just been imported, in its own words."""
    count = thread_count()
    if framework.__name__ == "torch":
        framework.set_num_threads(count)
    elif framework.__name__ == "tensorflow":
        with suppress(RuntimeError):  # it has started already
            framework.config.threading.set_intra_op_parallelism_threads(count)
            framework.config.threading.set_inter_op_parallelism_threads(count)


def numbers() -> dict[str, int]:
    """What the packages that are loaded, and can tell, say of themselves."""
    said = {"npselect": thread_count()}
    torch, tensorflow = (sys.modules.get(name) for name in ("torch", "tensorflow"))
    if torch is not None:
        said["torch"] = torch.get_num_threads()
    if tensorflow is not None:
        said["tensorflow"] = tensorflow.config.threading.get_intra_op_parallelism_threads()
    return said
