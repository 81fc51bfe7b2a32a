"""Checking somebody else's implementation against the oracle.

>>> from types import SimpleNamespace
>>> from npselect import straight_through, testing
>>> report = testing.check(straight_through, profile="strict")
>>> report.ok
True
"""

from npselect.testing.cases import Case, cases
from npselect.testing.check import check
from npselect.testing.report import Difference, Outcome, Report

__all__ = ["Case", "Difference", "Outcome", "Report", "cases", "check"]
