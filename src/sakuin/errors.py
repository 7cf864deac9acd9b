"""The error that a user can do something about: one sentence that names the value and the remedy.

Raised where a bad file, model, setting or machine enters; the command line prints it and exits with code 2.
It is a `ValueError`, so that callers who know nothing of sakuin catch it too.
"""

from __future__ import annotations


class SakuinError(ValueError):
    """Bad input, described in one sentence for the person who gave it."""
