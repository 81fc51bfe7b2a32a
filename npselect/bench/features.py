"""What a processor must have to run code that LLVM makes for another.

LLVM tells nobody which features a name stands for, but its inliner knows: a function is inlined only into one that has
all its features. So each feature is asked for with a pair of functions, and those it was inlined into are counted. In a
process of its own, for LLVM writes what it does not know to stderr, or aborts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

__all__ = ["features", "missing"]

_UNKNOWN = "is not a recognized processor"
# fmt: off
_ASKED_FOR_BY_NAME = frozenset({  # instructions that no compiler issues unless a program names them
    "adx", "clflushopt", "clwb", "clzero", "fsgsbase", "invpcid", "lwp", "mwaitx", "pku", "ptwrite", "rdpid", "rdpru",
    "rdrnd", "rdseed", "sgx", "sha", "shstk", "wbnoinvd", "xsave", "xsavec", "xsaveopt", "xsaves",
})
# fmt: on


def features(name: str) -> tuple[frozenset[str], frozenset[str]]:
    """The features that code for a processor may use, and those that this processor has.

    Parameters
    ----------
    name : str
        As LLVM has it: "haswell", "x86-64-v2".

    Raises
    ------
    ValueError
        LLVM knows no such processor, or this is none of the family x86-64.
    """
    run = subprocess.run([sys.executable, "-P", __file__, name], capture_output=True, text=True, check=False)
    if not name or _UNKNOWN in run.stderr:  # LLVM has a processor for no name
        raise ValueError(f"LLVM knows no x86-64 processor {name!r}; it knows haswell, x86-64-v3, znver4 and many more")
    if run.returncode:
        last = next(iter(reversed(run.stderr.strip().splitlines())), f"status {run.returncode}")
        raise ValueError(f"LLVM cannot tell what code for the processor {name!r} needs: {last}")
    uses, has = json.loads(run.stdout)
    return frozenset(uses), frozenset(has)


def missing(uses: frozenset[str], has: frozenset[str]) -> list[str]:
    """What a processor would need to run the code, and lacks."""
    return sorted(uses - has - _ASKED_FOR_BY_NAME)


def _ask(name: str) -> tuple[list[str], list[str]]:
    """The same as lists, asked in this process."""
    import llvmlite.binding as llvm

    triple = llvm.get_default_triple()
    if not triple.startswith("x86_64"):
        raise SystemExit(f"this processor is none of the family x86-64 but of {triple}")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    host = llvm.get_host_cpu_features()
    module = llvm.parse_assembly(_questions(name, list(host), triple))
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=name, features="")
    builder: Any = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    uses = [each for i, each in enumerate(host) if "call" not in str(module.get_function(f"ask{i}"))]
    return uses, [each for each, there in host.items() if there]


def _questions(name: str, asked: list[str], triple: str) -> str:
    """For each feature a function that has it, and one for the processor that calls it."""
    lines = [f'target triple = "{triple}"', f'attributes #0 = {{ "target-cpu"="{name}" }}']
    for i, feature in enumerate(asked):
        lines += [
            f"define internal i32 @has{i}(i32 %x) #{i + 1} {{ %y = mul i32 %x, 3 ret i32 %y }}",
            f"define i32 @ask{i}(i32 %x) #0 {{ %y = call i32 @has{i}(i32 %x) ret i32 %y }}",
            f'attributes #{i + 1} = {{ "target-cpu"="x86-64" "target-features"="+{feature}" }}',
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(_ask(sys.argv[1])))
