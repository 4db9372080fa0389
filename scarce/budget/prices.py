"""What a machine costs by the hour, by the type of node that it is in a Ray cluster."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from scarce.errors import UserError

Unit = Literal["GPU", "CPU"]
FLAG = "--price-per-hour"
EXPECTED = f"expected {FLAG} TYPE=DOLLARS ..., or one number for all nodes, as in {FLAG} l4-spot=0.34 head=0.10"


@dataclass(frozen=True)
class Prices:
    """Dollars an hour of a node, by its type."""

    by_type: Mapping[str, float] = field(default_factory=dict)
    default: float | None = None  # of a type that is not named

    def of(self, types: Iterable[str]) -> float | None:
        """The price of a node of these types: the first named one's, else `dearest`; None: unknown."""
        return next((self.by_type[name] for name in types if name in self.by_type), self.dearest)

    @property
    def dearest(self) -> float | None:
        """Of a node that is not named: the default or, so that a budget in dollars holds, the highest price given."""
        return self.default if self.default is not None else max(self.by_type.values(), default=None)

    @property
    def text(self) -> str:
        """As the user gave them; empty if not at all."""
        named = [f"{name}={price:g}" for name, price in self.by_type.items()]
        return " ".join(named + ([f"{self.default:g}"] if self.default is not None else []))


@dataclass(frozen=True)
class Node:
    """A machine that is alive."""

    type: str  # as reports call it
    address: str
    devices: float  # GPUs or CPUs, whichever the run counts
    usd_per_hour: float | None


def parse_prices(words: Sequence[str]) -> Prices:
    """Prices from `TYPE=DOLLARS` words, of which one may be the number alone. `UserError` where one is neither."""
    by_type: dict[str, float] = {}
    default = None
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            price = float(number)
        except ValueError:
            price = math.nan
        if not (math.isfinite(price) and price >= 0) or ("=" in word and not name):
            raise UserError(f"{FLAG} {word}: {EXPECTED}")
        if name in by_type or (not name and default is not None):
            raise UserError(f"{FLAG} names {name or 'the default'} twice: {EXPECTED}")
        if name:
            by_type[name] = price
        else:
            default = price
    return Prices(by_type, default)


def types_of(node: Mapping[str, Any]) -> tuple[str, ...]:
    """What an entry of `ray.nodes()` may be called in a price list, the most telling name first.

    Its node type of the cluster launcher or group of KubeRay, where Ray knows it (label ray.io/node-group, which
    `ray start --labels` sets elsewhere); `head`, if it is; its kind of accelerator, such as L4; else `worker`.
    """
    labels, resources = node.get("Labels", {}), node["Resources"]
    names = [labels.get("ray.io/node-group", "")]
    if "node:__internal_head__" in resources:
        names.append("head")
    names.append(labels.get("ray.io/accelerator-type", ""))
    names += [name.partition(":")[2] for name in resources if name.startswith("accelerator_type:")]
    return tuple(dict.fromkeys(name for name in [*names, "worker"] if name))


def read_nodes(nodes: Iterable[Mapping[str, Any]], prices: Prices, unit: Unit) -> list[Node]:
    """The living ones of `ray.nodes()`, with their prices."""
    return [
        Node(types_of(node)[0], node["NodeManagerAddress"], node["Resources"].get(unit, 0.0), prices.of(types_of(node)))
        for node in nodes
        if node["Alive"]
    ]
