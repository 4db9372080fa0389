"""Self-supervised methods. Adding one is one file here and one line in `REGISTRY`."""

from scarce.errors import UserError
from scarce.methods.barlow_twins import BarlowTwins
from scarce.methods.base import Method, MethodConfig, OptimiserConfig
from scarce.methods.moco import MoCo
from scarce.methods.simclr import SimCLR

REGISTRY: dict[str, type[Method]] = {
    "moco": MoCo,
    "simclr": SimCLR,
    "barlow_twins": BarlowTwins,
}


def find_method(name: str) -> type[Method]:
    """The method's class; `UserError` for a name that is not registered."""
    if name not in REGISTRY:
        raise UserError(f"no method {name!r}: expected one of {', '.join(REGISTRY)}")
    return REGISTRY[name]


__all__ = ["REGISTRY", "Method", "MethodConfig", "OptimiserConfig", "find_method"]
