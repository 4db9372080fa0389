"""How a trial ended, told by its last report."""

from collections.abc import Mapping
from typing import Any

from scarce.trials.records import FAILED

OUT_OF_BUDGET = "out_of_budget"  # marks the last report of a trial that was stopped for the budget
ENDINGS = ("done", "pruned", "collapsed", "failed", "stopped for the budget")


def ending(result: Mapping[str, Any], epochs: float) -> str:
    """How a trial ended, one of `ENDINGS`, by its last report; `epochs` are a whole trial's."""
    if FAILED in result:
        return "failed"
    if result.get("collapsed"):
        return "collapsed"
    if result.get(OUT_OF_BUDGET):
        return "stopped for the budget"
    return "done" if result.get("epoch", 0) >= epochs else "pruned"
