"""A plugin of pytest: a test that takes `npselect_case` runs once for each of the oracle's cases.

It is beside the package and not in it, because importing ``npselect.anything`` imports NumPy, which no test run should
pay for that does not ask. What a mark means is in `npselect.testing.marked`, which is imported when a test is met that
takes the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from npselect.testing.marked import MarkedCase

__all__ = ["npselect_case", "pytest_configure", "pytest_generate_tests", "pytest_report_header"]

_FIXTURE = "npselect_case"
_MARK = (
    "npselect(dtypes='float32', operator='straight_through', options=(), profile='standard', groups=None): run the "
    f"test once for each of the oracle's cases, as the fixture {_FIXTURE}"
)


@pytest.fixture
def npselect_case(request: pytest.FixtureRequest) -> MarkedCase:
    """One of the oracle's cases, as ``@pytest.mark.npselect(dtypes=..., operator=..., ...)`` chooses them.

    ``npselect_case.check(implementation)`` is a whole test; see `npselect.testing.marked.MarkedCase`.
    """
    case: MarkedCase = request.param
    return case


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", _MARK)


def pytest_report_header(config: pytest.Config) -> str:
    """The version, in pytest's header, of the distribution that has the plugin; none if ``-p`` has named it."""
    named = (f" {dist.version}" for plugin, dist in config.pluginmanager.list_plugin_distinfo() if _is_this(plugin))
    return f"npselect{next(named, '')}: tests that take {_FIXTURE} run once for each of the oracle's cases"


def _is_this(plugin: object) -> bool:
    return getattr(plugin, "__name__", None) == __name__


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that takes the fixture its cases."""
    mark = metafunc.definition.get_closest_marker("npselect")
    if _FIXTURE not in metafunc.fixturenames:
        if mark is not None and mark in metafunc.definition.own_markers:
            pytest.fail(f"{metafunc.function.__name__} is marked npselect, but takes no {_FIXTURE}", pytrace=False)
        return
    from npselect.testing.marked import marked_cases

    try:
        cases = marked_cases(*(() if mark is None else mark.args), **({} if mark is None else mark.kwargs))
    except (TypeError, ValueError, ImportError) as error:
        pytest.fail(f"{metafunc.function.__name__}: @pytest.mark.npselect: {error}", pytrace=False)
    metafunc.parametrize(_FIXTURE, cases, ids=str, indirect=True)
