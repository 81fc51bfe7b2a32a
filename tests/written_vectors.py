"""The vectors, written once, and what their tests share."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from npselect import testing
from npselect.testing.cases import all_cases
from npselect.testing.dtypes import floating_dtype
from npselect.testing.families import FAMILIES

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
OPERATORS = {name: family.module for name, family in FAMILIES.items()}
PREFIXES = {"straight_through": "", "gumbel_softmax": "gumbel/"} | {
    name: f"{name}/" for name in ("reinmax", "categorical", "gapped", "gumbel_rao")
}
FILES = [(operator, dtype) for operator in OPERATORS for dtype in testing.DTYPES]
SMALL = ("straight_through", "float32")
remembered = functools.cache(all_cases)  # with their answers, which take most of the time


def read(folder, operator, dtype):
    return json.loads((folder / f"{operator}-{dtype}.json").read_text(encoding="ascii"))


def load(folder, operator, dtype):
    return testing.load_vectors(folder / f"{operator}-{dtype}.json")


def bits(array):
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.json"))}


def originals(operator, dtype):
    return {case.id: case for case in remembered(floating_dtype(dtype), FAMILIES[operator].temp, OPERATORS[operator])}
