"""Self-supervised methods. Adding one is one file here and one line in `REGISTRY`."""

from scarce.errors import UserError
from scarce.methods.barlow_twins import BarlowTwins
from scarce.methods.base import Method, MethodConfig, OptimiserConfig
from scarce.methods.byol import BYOL
from scarce.methods.dino import DINO
from scarce.methods.moco import MoCo, PlainMoCo
from scarce.methods.moco_v3 import MoCoV3
from scarce.methods.simclr import SimCLR
from scarce.methods.simsiam import SimSiam
from scarce.methods.spark import SparK
from scarce.methods.vicreg import VICReg

REGISTRY: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "moco": MoCo,
    "moco_plain": PlainMoCo,
    "moco_v3": MoCoV3,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "byol": BYOL,
    "simsiam": SimSiam,
    "dino": DINO,
    "spark": SparK,
}


def find_method(name: str) -> type[Method]:
    """The method's class; `UserError` for a name that is not registered."""
    if name not in REGISTRY:
        raise UserError(f"no method {name!r}: expected one of {', '.join(REGISTRY)}")
    return REGISTRY[name]


__all__ = ["REGISTRY", "Method", "MethodConfig", "OptimiserConfig", "find_method"]
