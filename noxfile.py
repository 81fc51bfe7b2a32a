"""The commands of CONTRIBUTING.md, each in an environment of its own: ``nox -l`` lists them. CI is .ci/run."""

import nox

nox.options.sessions = ["lint", "tests"]


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


@nox.session
def docs(session: nox.Session) -> None:
    """The site, and its links."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "docs", "site")
    session.run("python", "docs/check_site.py", "site")
