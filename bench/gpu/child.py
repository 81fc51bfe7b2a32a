"""The process of one section: ``python -m gpu.child '{"function": "module:function", ...}'``.

It ends with 0 if the section came to its end, whatever that reported, and with 1 if an exception ended it.
"""

from __future__ import annotations

import faulthandler
import json
import sys
from importlib import import_module
from pathlib import Path

from gpu import Record
from gpu.report import Report

__all__ = ["main"]


def main(order: Record) -> int:
    faulthandler.enable()
    module, _, function = order["function"].partition(":")
    with Path(order["lines"]).open("a", encoding="utf-8") as stream:
        report = Report(stream, order["seconds"], quick=order["quick"], done=order["done"])
        try:
            getattr(import_module(module), function)(report, order["part"])
        except Exception as error:
            report.error(order["part"] or module, error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
