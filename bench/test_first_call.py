"""The first call, in new processes: import, compile or load, forward and backward."""

import pytest

from npselect.bench.first_call import FIRST_CALLS, new_process


@pytest.mark.parametrize("name", [name for name in FIRST_CALLS if name.startswith("import")])
def test_import(benchmark, tmp_path, name):
    benchmark.group = "import"
    benchmark.pedantic(new_process, (FIRST_CALLS[name], tmp_path), rounds=5)


@pytest.mark.parametrize("cache", ["cold", "warm"])
@pytest.mark.parametrize("name", [name for name in FIRST_CALLS if not name.startswith("import")])
def test_first_call(benchmark, tmp_path_factory, name, cache):
    benchmark.group = f"first call, {name}"
    if benchmark.disabled and (name, cache) != ("straight_through", "warm"):
        pytest.skip("one that compiles and loads is enough to see that this runs")
    if cache == "cold":  # an empty directory each time
        benchmark.pedantic(
            new_process, setup=lambda: ((FIRST_CALLS[name], tmp_path_factory.mktemp("cold")), {}), rounds=3
        )
        return
    directory = tmp_path_factory.mktemp("warm")
    new_process(FIRST_CALLS[name], directory)
    benchmark.pedantic(new_process, (FIRST_CALLS[name], directory), rounds=5)
