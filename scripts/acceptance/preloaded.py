"""Imported once for all runs of the small mode, which are forked from the process that did so."""

import contextlib

with contextlib.suppress(ImportError):  # what is missing is told by the run that needs it
    import peft  # noqa: F401
    import trl  # noqa: F401

    import training.adapter  # noqa: F401
