"""The CPU tier's kernels compiled for AArch64, wherever this runs: ``python tests/aarch64.py DIR [--kernel NAME]``.

numba's own pipeline, from Python to LLVM, with a target machine of another processor behind it. What comes of it is
written as assembly, a file for each kernel and dtype, and not run; where numba's caches are kept, an AArch64 process
finds the machine code in them. It changes numba for the whole process, which should do nothing else.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import llvmlite.binding as ll
import numpy as np
from numba.core import codegen, config, cpu
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target

TRIPLE = "aarch64-unknown-linux-gnu"
PROCESSOR = "neoverse-n1"  # NEON, no SVE: what every AArch64 processor has, and fp16
DTYPES = ("float16", "bfloat16", "float32", "float64")
_NUMBERS = itertools.count(10**6)


class Library(codegen.JITCodeLibrary):  # type: ignore[misc]
    """Code that is optimised and not loaded."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()

    def _get_compiled_object(self) -> bytes:
        """For numba's cache: as the engine of an AArch64 process would have it."""
        machine = self._codegen._machine(codemodel="jitdefault", jit=True)
        return bytes(machine.emit_object(self._final_module.clone()))


class AArch64(codegen.JITCPUCodegen):  # type: ignore[misc]
    """numba's code generator with another target machine."""

    _library_class = Library

    def _init(self, _: Any) -> None:
        self._tm_features = ""
        self._tm = self._machine()
        self._target_data = self._tm.target_data
        self._data_layout = str(self._target_data)
        self._loopvect, self._opt_level = False, 0  # as numba has them

    def _create_empty_module(self, name: str) -> Any:
        module = super()._create_empty_module(name)
        module.triple = TRIPLE
        return module

    @staticmethod
    def _machine(**options: Any) -> Any:
        target = ll.Target.from_triple(TRIPLE)
        return target.create_target_machine(cpu=PROCESSOR, features="", opt=int(config.OPT), **options)

    def magic_tuple(self) -> tuple[str, str, str]:
        return TRIPLE, PROCESSOR, ""

    def assembly(self, library: Library) -> str:
        return str(self._tm.emit_assembly(library._final_module.clone()))


def generator() -> AArch64:
    """Put it in numba's place; what is compiled from now on does nothing when it is called."""
    ll.initialize_all_targets()
    ll.initialize_all_asmprinters()
    context = cpu_target.target_context
    context._internal_codegen = made = AArch64("numba.exec")
    cpu.CPUContext.get_executable = _stand_in
    return made


def _stand_in(_: Any, library: Library, *__: Any) -> Any:
    """What numba takes for the compiled function, one for each: a built-in that takes anything and does nothing."""
    library._ensure_finalized()
    return str(next(_NUMBERS)).format


def arrays(dtype: str) -> dict[str, Any]:
    """The types of arguments, as `npselect.tiers.cpu.rows` hands them over."""
    from npselect._arithmetic.half import compute_type, stored

    kind = np.dtype(__import__("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)
    logits = np.zeros((2, 3), kind)
    compute = np.dtype(compute_type(logits))
    return {
        **dict.fromkeys(
            ("logits", "out", "grad_mask", "grad_grad_logits", "out_grad_mask", "out_logits"), stored(logits)
        ),
        "where": np.zeros((2, 3), np.bool_),
        "temp": np.ones(1, compute),
        "scratch": np.zeros(1, compute),
        "index": np.zeros(2, np.int64),
        "each": np.zeros(2, compute),
        "wide": np.zeros((2, 3), compute),
        "row": stored(logits)[0],
        "wide_row": np.zeros(3, compute),
        "numbers": np.zeros(3, np.uint64),
        "number": np.uint64(0),
        "factor": compute.type(1),
        "wide64": np.zeros((2, 3)),
        "int": 0,
    }


def kernels() -> dict[str, tuple[Any, list[str]]]:
    """All of them by name, each with the names of its arguments in `arrays`."""
    from npselect.tiers.cpu import long_rows, noise, short_rows

    outs = {"index_rows": "index", "choice_rows": "index", "backward_temp_rows": "each", "sum_rows": "each"}
    found = {}
    for module in (short_rows, long_rows):
        for name in module.__all__:
            kernel = getattr(module, name)
            if isinstance(kernel, Dispatcher):
                code = kernel.py_func.__code__
                arguments = list(code.co_varnames[: code.co_argcount])
                named = {"start": "int", "stop": "int", "x": "wide", "choice": "index"}
                named |= dict.fromkeys(("scale", "mix", "gap", "before"), "temp")
                named |= {"noise": "wide", "apart": "int", "samples": "factor"}
                named |= {"out": outs[name]} if name in outs else {}
                named |= {"x": "wide64", "out": "wide"} if name == "log_rows" else {}
                room = module.__name__.rpartition(".")[2]
                found[f"{room}.{name}"] = kernel, [named.get(each, each) for each in arguments]
    others = {
        "draw": ["number", "number", "wide_row"],
        "draw_at": ["number", "numbers", "wide_row"],
        "perturb": ["row", "number", "number", "factor", "wide_row"],
        "perturb_at": ["row", "number", "numbers", "factor", "wide_row"],
        "add_rows": ["logits", "wide", "factor", "wide"],
    }
    return found | {f"noise.{name}": (getattr(noise, name), names) for name, names in others.items()}


def main() -> None:
    every = kernels()
    parser = argparse.ArgumentParser(description="The CPU tier's kernels, compiled for AArch64.")
    parser.add_argument("folder", type=Path, help="where the assembly is written")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="may be given several times (default: all)")
    parser.add_argument("--kernel", choices=every, action="append", help="may be given several times (default: all)")
    options = parser.parse_args()
    made = generator()
    options.folder.mkdir(parents=True, exist_ok=True)
    for kernel, _ in every.values():
        kernel._cache = NullCache()  # machine code of this processor, which is not asked for
    for dtype in options.dtype or DTYPES:
        given = arrays(dtype)
        for name in options.kernel or every:
            kernel, names = every[name]
            types = tuple(kernel.typeof_pyval(given[each]) for each in names)
            kernel.compile(types)
            (options.folder / f"{name}.{dtype}.s").write_text(made.assembly(kernel.overloads[types].library))


if __name__ == "__main__":
    main()
