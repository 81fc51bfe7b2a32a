"""What bench/gpu.py concludes of its records."""

from __future__ import annotations

from gpu import summary
from gpu.results import Results

import npselect


def test_targets_and_tables(tmp_path):
    results = Results(tmp_path, began="2000-01-01T00:00:00", targets=[])

    def timing_of(section, what, choices, **fields):
        record = {"kind": "timing", "what": what, "dtype": "float32", "choices": choices, **fields}
        results.add(section, "", record)

    for choices in (256, 1000, 1024, 4096, 16384):
        timing_of("speed", "straight_through.backward", choices, of_copy=0.9 + (choices == 4096) / 100)
        timing_of("speed", "straight_through.forward", choices, of_copy=0.95)
    timing_of("speed", "straight_through.backward", 10, of_copy=0.5)
    timing_of("peers", "straight_through.backward", 1024, peer="torch eager", of_copy=0.3, to_npselect=2.5)
    timing_of("peers", "straight_through.backward", 10, peer="torch eager", of_copy=0.3, to_npselect=2.0)
    timing_of("peers", "straight_through.forward", 10, peer="Triton", of_copy=0.3, to_npselect=0.9, within_bound=False)
    results.add("host", "", {"kind": "host", "what": "f", "layer": "public", "median_us": 7.0})
    results.add("host", "", {"kind": "host", "what": "f", "layer": "driver", "median_us": 70.0})
    results.add("many", "", {"kind": "check", "what": "f", "elements": 10**8, "differing": 1})
    results.content["targets"] = summary.targets(results)
    found = {target["what"]: (target["measured"], target["met"]) for target in results.content["targets"]}
    assert found["backward, K 256..16384, aligned"] == (0.9, False)
    assert found["forward, K 256..16384, aligned"] == (0.95, True)
    assert found["forward and backward, K below 64"] == (0.5, False)
    assert found["forward and backward, odd K"] == (None, None)
    assert found["backward, torch eager's time over ours"] == (2.0, True)
    assert found["forward and backward, Triton's time over ours"] == (0.9, False)
    assert found["host cost of a launch, preallocated arrays, us"] == (7.0, True)
    assert found["bits equal to the CPU tier's, of 10**8 elements"] == (1 - 1e-8, False)
    text = summary.markdown(results)
    assert "0.99999999 |" in text
    assert "not measured" in text
    assert "0.90 (wrong)" in text
    assert npselect.__name__ in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({row.count("|") for row in table.splitlines()}) == 1
