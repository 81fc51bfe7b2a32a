"""What an operator's module can do beyond any other's: travel to other processes, as `functools.partial` of it must."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

__all__ = ["OperatorModule"]


class OperatorModule(ModuleType):
    """A module that is pickled and copied as its name, which Python does for functions and classes alone.

    A module becomes one by its last line, ``sys.modules[__name__].__class__ = OperatorModule`` (Python's reference
    manual, "Customizing module attribute access").
    """

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        return import_module, (self.__name__,)
