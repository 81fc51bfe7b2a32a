"""Checking somebody else's implementation against the oracle.

Examples
--------
>>> from npselect import straight_through, testing
>>> testing.check(straight_through, profile="strict").ok
True
"""

from npselect.testing.cases import Case, cases
from npselect.testing.check import DTYPES, check
from npselect.testing.judge import PROFILES
from npselect.testing.report import Difference, Outcome, Report
from npselect.testing.sampler import check_sampler
from npselect.testing.sampler_report import SamplerReport, SamplerTest

__all__ = [
    "DTYPES",
    "PROFILES",
    "Case",
    "Difference",
    "Outcome",
    "Report",
    "SamplerReport",
    "SamplerTest",
    "cases",
    "check",
    "check_sampler",
]
