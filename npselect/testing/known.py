"""Failures that somebody knows of: which cases a list of them covers, and which of its entries nothing fails for.

The list maps patterns of ids (`fnmatch.fnmatchcase`) to reasons. The rules:

- A case that fails and that a pattern matches is *known*: it is shown with the reason, and counts as no failure. The
  first pattern that matches gives the reason.
- A pattern covers a group, and some of its cases may pass. But at least one must fail, or the entry is *stale*: what it
  speaks of is mended, or was never asked, and the entry must go. So nothing stays on the list unseen.
- A pattern that matches no case at all is a mistake in writing, and refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from npselect.testing.outcome import Outcome

__all__ = ["excused", "known_failures", "reason_for", "stale", "told_of_stale"]

_NEAR = 3  # ids that an error names


def known_failures(known: Mapping[str, str] | None, ids: Sequence[str]) -> dict[str, str]:
    """The list, if each of its patterns matches some of `ids`; to be called before anything is asked.

    Raises
    ------
    TypeError
        It is no mapping of str to str.
    ValueError
        A reason is empty, or a pattern matches no case: which, and the ids that are near.
    """
    if known is None:
        return {}
    if not isinstance(known, Mapping):
        raise TypeError(f"known is {known!r}; it takes a mapping of case ids, or patterns of them, to reasons")
    for pattern, reason in known.items():
        if not all(isinstance(text, str) for text in (pattern, reason)):
            raise TypeError(
                f"known holds {pattern!r}: {reason!r}; both must be str, a case id or a pattern and a reason"
            )
        if not reason.strip():
            raise ValueError(f"known[{pattern!r}] is empty; say why the case fails")
        if not any(_matches(pattern, name) for name in ids):
            near = difflib.get_close_matches(pattern, ids, _NEAR, cutoff=0.3) or list(ids[:_NEAR])
            raise ValueError(
                f"known holds {pattern!r}, which matches no case; near it are {', '.join(map(repr, near))}"
            )
    return dict(known)


def reason_for(id: str, known: Mapping[str, str]) -> str | None:  # noqa: A002 the name of the attribute
    """Why the case may fail, by the first pattern that matches; None if none does."""
    return next((reason for pattern, reason in known.items() if _matches(pattern, id)), None)


def excused(outcome: Outcome, known: Mapping[str, str]) -> Outcome:
    """The outcome as a report has it: with the reason, if it is a failure that is known."""
    reason = reason_for(outcome.id, known) if outcome.verdict == "failed" else None
    return outcome if reason is None else replace(outcome, verdict="known", known=reason)


def stale(known: Mapping[str, str], failed: Collection[str]) -> list[str]:
    """The patterns that match none of the ids of cases that failed."""
    return [pattern for pattern in known if not any(_matches(pattern, name) for name in failed)]


def told_of_stale(known: Mapping[str, str], ids: Collection[str], failed: Collection[str]) -> list[str]:
    """A line for each stale pattern, of a report. `ids` are those of the cases that were judged."""
    lines = []
    for pattern in stale(known, failed):
        count = sum(_matches(pattern, name) for name in ids)
        passed = "no case is judged that it matches" if not count else "its case passes"
        passed = f"its {count} cases pass" if count > 1 else passed
        lines.append(f"known, but does not fail: {pattern} ({known[pattern]}): {passed}; take it off the list")
    return lines


def _matches(pattern: str, id: str) -> bool:  # noqa: A002
    """An id matches itself, whatever brackets are in it."""
    return pattern == id or fnmatchcase(id, pattern)
