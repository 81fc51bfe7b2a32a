"""``npselect survey``: a process for each package, verdicts whatever an op does, a table, JSON and a page."""

from __future__ import annotations

import json
import subprocess
import sys

import children
import pytest
from commands import ENVIRONMENT, ROOT, cannot_run, run

from npselect.cli import main
from npselect.survey import SurveyReport, survey
from npselect.survey.page import BY_HAND, page
from npselect.survey.run import REGISTRY
from npselect.testing.known_ops import PACKAGES

OPS = """\
import os, sys
from npselect.testing.known_ops import Finding, KnownOp, Package

def judge(subject):
    print("what a framework prints")
    return subject

def raises():
    raise ValueError("first line\\nsecond line")

def crashes():
    os.abort()

def leaves():
    sys.exit(3)

def dies():
    os._exit(4)

right = Finding(True, "all", remarks=("a remark",))
wrong = Finding(False, "all", "a cause", "got 1; expected 2")

def op(name, subject):
    return KnownOp(name, subject, judge, "documented | here", ("https://example.org",), "1\\n2\\n3")

PACKAGES = {
    "mixed": Package("mixed", ("json",), ("numpy",), (
        op("right", lambda: right), op("raises", raises), op("crashes", crashes), op("leaves", leaves),
        op("dies", dies), op("wrong", lambda: wrong))),
    "missing": Package("missing", ("no_such_module",), ("no-such-package",), (op("never", lambda: right),)),
    "broken": Package("broken", ("broken_module",), ("broken",), (op("never", lambda: right),)),
    "aborts": Package("aborts", ("aborting_module",), ("aborts",), (op("never", lambda: right),)),
    "fine": Package("fine", ("json",), ("no-such-package",), (op("right", lambda: right),)),
}
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """The name of a module with ops of all kinds, which processes find too."""
    folder = tmp_path_factory.mktemp("ops")
    (folder / "ops_of_all_kinds.py").write_text(OPS, encoding="utf-8")
    (folder / "broken_module.py").write_text("raise OSError('libbroken.so is missing')", encoding="utf-8")
    (folder / "aborting_module.py").write_text("import os; os.abort()", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", f"{folder}:{ENVIRONMENT['PYTHONPATH']}")
        yield "ops_of_all_kinds"


@pytest.fixture(scope="module")
def report(registry):
    """Of all of them, with what its progress was."""
    seen = []
    found = survey(registry=registry, progress=lambda *place: seen.append(place))
    assert seen[0] == (0, 10, "right")
    assert seen[-1] == (10, 10, "")
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    return found


def test_each_op_has_a_verdict_whatever_it_does(report):
    mixed = [result for result in report.results if result.package == "mixed"]
    assert [(result.op, result.verdict) for result in mixed] == [
        ("right", "passed"),
        ("raises", "could not run"),
        ("crashes", "could not run"),
        ("leaves", "could not run"),
        ("dies", "could not run"),
        ("wrong", "wrong"),
    ]
    details = {result.op: result.detail for result in mixed}
    assert details["raises"] == "ValueError: first line"
    assert details["crashes"] == "its process was ended by SIGABRT"
    assert details["leaves"] == "SystemExit: 3"
    assert details["dies"] == "its process ended with status 4"
    assert details["wrong"] == "got 1; expected 2"
    assert {result.version for result in mixed} == {__import__("numpy").__version__}
    assert report.status == 1


def test_packages_that_cannot_be_imported_are_named_with_the_reason(report):
    assert dict(report.absent) == {
        "missing": "ModuleNotFoundError: No module named 'no_such_module'",
        "broken": "OSError: libbroken.so is missing",
        "aborts": "its process was ended by SIGABRT",
    }
    assert "missing cannot be imported: ModuleNotFoundError: No module named 'no_such_module'" in str(report)


def test_exit_status(registry):
    assert survey(["fine"], registry=registry).status == 0
    assert survey(["missing"], registry=registry).status == 2
    with pytest.raises(ValueError, match="no package torhc is known; there are mixed, missing"):
        survey(["torhc"], registry=registry)


def test_text_json_and_page(report):
    lines = str(report).splitlines()
    assert lines[0].split() == ["package", "op", "verdict", "likely", "cause", "documented", "link"]
    assert lines[1].split()[2:4] == ["right", "passed"]
    assert "a remark" in lines[1]
    assert lines[-1] == "7 ops: 2 passed, 1 wrong, 4 could not run; packages that are not here: 3"
    again = SurveyReport.from_json(report.to_json())
    assert again == report
    assert json.loads(report.to_json())["schema"] == "npselect-survey/1"
    with pytest.raises(ValueError, match="no npselect-survey/1"):
        SurveyReport.from_json("{}")
    text = page(report, "npselect survey --json a.json", f"old\n{BY_HAND}\nby hand\n")
    assert text.startswith("# A survey")
    assert "Generated by `npselect survey --json a.json`" in text
    assert "documented \\| here" in text
    assert "```text\n1\n2\n3\n```" in text
    assert text.endswith(f"{BY_HAND}\nby hand\n")
    assert page(report, "npselect survey", text) == page(
        report, "npselect survey", page(report, "npselect survey", text)
    )


def test_an_earlier_survey_is_added(report, registry):
    here = survey(["fine", "missing"], registry=registry)
    earlier = report.results[0]
    from dataclasses import replace

    old = replace(report, results=(replace(earlier, package="missing"), replace(earlier, package="other")), absent={})
    merged = here.merged(old)
    assert [result.package for result in merged.results] == ["fine", "missing"]
    assert not merged.absent


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_lists(capsys):
    assert main(["survey", "--list"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == sum(len(package.ops) for package in PACKAGES.values())
    assert any("torch.nn.functional.gumbel_softmax" in text for text in out)


def test_the_command_refuses(capsys, tmp_path):
    assert "invalid choice: 'torhc'" in cannot_run(capsys, "survey", "--only", "torhc")
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}", encoding="utf-8")
    assert "no npselect-survey/1; it takes a file that --json wrote" in cannot_run(
        capsys, "survey", "--add", str(wrong)
    )
    assert "No such file" in cannot_run(capsys, "survey", "--add", str(tmp_path / "none.json"))


def test_the_command_writes(monkeypatch, capsys, tmp_path, report):
    monkeypatch.setattr("npselect.survey.command.survey", lambda only, progress: report)
    written = tmp_path / "out.json", tmp_path / "out.md"
    assert main(["survey", "--json", str(written[0]), "--markdown", str(written[1])]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == report.summary
    assert SurveyReport.from_json(written[0].read_text(encoding="utf-8")) == report
    assert written[1].read_text(encoding="utf-8").startswith("# A survey")


def test_nothing_could_be_run():
    """Where no package is: without site-packages nothing but npselect's own dependencies would be there."""
    done = run("survey", "--only", "softtorch")
    if done.returncode != 2:
        pytest.skip("softtorch is installed")
    assert "softtorch cannot be imported: ModuleNotFoundError: No module named 'softtorch'" in done.stdout


def test_importing_known_ops_imports_no_framework():
    code = f"import sys, {REGISTRY}, npselect.cli; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    command = [*children.python(), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=ENVIRONMENT)
    modules = {name.split(".")[0] for package in PACKAGES.values() for name in package.modules}
    assert not modules & set(done.stdout.split())
    assert sys.modules.keys() >= {"npselect"}
