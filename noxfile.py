#!/usr/bin/env -S uv run
# /// script
# dependencies = ["nox"]
# ///
"""The commands of CONTRIBUTING.md, each in an environment of its own: ``nox -l`` lists them. CI is .ci/run."""

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"


@nox.session
def lint(session: nox.Session) -> None:
    """Lint and types."""
    session.install("-e", ".[test,dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but the long sweeps; arguments after -- are pytest's."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The site, and its links."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "docs", "site")
    session.run("python", "docs/check_site.py", "site")


if __name__ == "__main__":
    nox.main()
