"""The vocabulary in which a view, a method or a probe declares what may be searched.

Plain values, so that declaring a space needs neither Ray nor Optuna; `study/optuna_space.py` translates them.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Float:
    """A real number in [low, high], uniform or log-uniform."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[bool | int | float | str, ...]


Dimension = Float | Choice
SearchSpace = Mapping[str, Dimension]
