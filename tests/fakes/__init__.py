"""GPUs that are none: drivers as `npselect._gpu.driver.Driver` describes them, and what tests need around them."""

from contextlib import contextmanager
from unittest import mock

from npselect import tiers
from npselect._gpu.driver import using

__all__ = ["installed"]


@contextmanager
def installed(driver, tier):
    """Use a driver, and a module of row functions as the tier "cuda"."""
    load = tiers._load
    with using(driver), mock.patch.object(tiers, "_load", lambda name: tier if name == "cuda" else load(name)):
        yield driver
