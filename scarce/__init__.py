"""Few-shot chest X-ray classification from a search over self-supervised pretraining; in Python, see `scarce.api`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scarce.api import Run, convert, open_run, sweep
    from scarce.config import PRESETS, DataConfig, SweepConfig
    from scarce.data.hospitals import open_hospital
    from scarce.data.store import Dataset
    from scarce.errors import UserError
    from scarce.space import Choice, Float

__version__ = "0.1.0"
__all__ = [
    "PRESETS",
    "Choice",
    "DataConfig",
    "Dataset",
    "Float",
    "Run",
    "SweepConfig",
    "UserError",
    "convert",
    "open_hospital",
    "open_run",
    "sweep",
]
_HOMES = ("scarce.errors", "scarce.space", "scarce.config", "scarce.data.store", "scarce.data.hospitals", "scarce.api")


def __getattr__(name: str) -> Any:
    """What is offered, imported once it is asked for: `import scarce` takes no time."""
    if name in __all__:
        return next(getattr(home, name) for home in map(import_module, _HOMES) if hasattr(home, name))
    raise AttributeError(f"module 'scarce' has no attribute {name!r}")
