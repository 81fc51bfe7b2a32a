"""The ops that people ship, judged where they are installed: the command ``npselect survey``.

`run` starts a process for each package, so that frameworks do not meet and a crash is one op's verdict; `child` is what
that process does; `report` tells.

Examples
--------
>>> from npselect.survey import survey
>>> report = survey(["entmax"])  # doctest: +SKIP
>>> print(report)  # doctest: +SKIP
"""

from npselect.survey.report import Result, SurveyReport
from npselect.survey.run import survey

__all__ = ["Result", "SurveyReport", "survey"]
