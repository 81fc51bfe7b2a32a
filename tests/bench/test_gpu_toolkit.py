"""Where bench/gpu.py looks for libNVVM."""

import os
from pathlib import Path

import pytest
from gpu import toolkit


@pytest.fixture
def toolkits(monkeypatch, tmp_path):
    """Make folders of toolkits, in which alone is looked."""
    monkeypatch.delenv("CUDA_HOME", raising=False)
    made = []
    monkeypatch.setattr(toolkit, "folders", lambda: made)

    def make(name, *files):
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(name)
        made.append(tmp_path / name)
        return tmp_path / name

    yield make
    os.environ.pop("CUDA_HOME", None)


def test_a_usual_toolkit_is_pointed_at(toolkits, tmp_path):
    toolkits("without", "nvvm/libdevice/libdevice.10.bc", "bin/ptxas")
    usual = toolkits("usual", "nvvm/lib64/libnvvm.so.4", "nvvm/libdevice/libdevice.10.bc")
    toolkit.point_at(tmp_path / "links")
    assert os.environ["CUDA_HOME"] == str(usual)
    assert toolkit.contents()[str(usual)] == ["nvvm/lib64/libnvvm.so.4", "nvvm/libdevice/libdevice.10.bc"]


@pytest.mark.parametrize("folder", ["lib64", "lib"])
def test_another_toolkit_is_linked_to(folder, toolkits, tmp_path):
    toolkits("assembled", f"{folder}/libnvvm.so.4", "nvvm/libdevice/libdevice.10.bc")
    toolkit.point_at(tmp_path / "links")
    home = Path(os.environ["CUDA_HOME"])
    assert (home / "nvvm" / "lib64" / "libnvvm.so.4").read_text() == "assembled"
    assert (home / "nvvm" / "libdevice" / "libdevice.10.bc").read_text() == "assembled"


def test_no_toolkit_or_one_that_was_named_is_left_alone(toolkits, tmp_path, monkeypatch):
    toolkits("half", "lib64/libnvvm.so.4")
    toolkit.point_at(tmp_path / "links")
    assert "CUDA_HOME" not in os.environ
    monkeypatch.setenv("CUDA_HOME", "mine")
    toolkits("usual", "nvvm/lib64/libnvvm.so.4", "nvvm/libdevice/libdevice.10.bc")
    toolkit.point_at(tmp_path / "links")
    assert os.environ["CUDA_HOME"] == "mine"


def test_folders_are_looked_for_where_they_may_be(monkeypatch, tmp_path):
    (tmp_path / "nvidia" / "cu13").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "nowhere"))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = toolkit.folders()
    assert found[0] == tmp_path / "home"
    assert tmp_path / "nvidia" / "cu13" in found
    assert tmp_path / "nowhere" not in found
