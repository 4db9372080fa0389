"""What a run costs: device-hours and dollars of its phases, nodes and trials, over all its restarts.

`spending.json` in the run's folder holds the sums. It is small whatever the run's length, and replaced as a whole
every few seconds and whenever a trial ends, so that a driver that is killed leaves no more than those seconds out.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from scarce.budget.prices import Node, Unit
from scarce.files import write_json

SPENDING_NAME = "spending.json"
SAVE_S = 5.0  # seconds between two savings

Phase = Literal["preparation", "search", "final"]
PHASES: tuple[Phase, ...] = ("preparation", "search", "final")
HOUR = 3600.0


class Spending:
    """The meter of a run. Time is charged by `tick`, to the nodes and trials that the tick before was told of."""

    def __init__(self, folder: Path, unit: Unit) -> None:
        """Go on with what the folder's file says; `unit` is the device that is counted."""
        self.path = folder / SPENDING_NAME
        self.unit = unit
        self.phases: dict[str, dict[str, float]] = {
            phase: {"seconds": 0.0, "device_seconds": 0.0, "usd": 0.0} for phase in PHASES
        }
        self.nodes: dict[str, dict[str, Any]] = {}  # by type: seconds of all of them, usd, usd_per_hour
        self.trials: dict[str, dict[str, Any]] = {}  # by identity: seconds, device_seconds, usd, status
        self.evaluation_seconds: float | None = None  # of one report's evaluation, the last measured
        if self.path.exists():
            for name, value in json.loads(self.path.read_text(encoding="utf-8")).items():
                setattr(self, name, value)
        self._now: tuple[float, Sequence[Node], Mapping[str, str | None]] | None = None
        self._saved = -SAVE_S

    def tick(
        self,
        phase: Phase,
        nodes: Sequence[Node] | None = None,
        running: Mapping[str, str | None] | None = None,
        trial_devices: float = 0.0,
        now: float | None = None,
    ) -> None:
        """Charge the time since the last tick.

        Args:
            phase: that the time belongs to.
            nodes: that are alive from now on; None: those of before.
            running: trials that run from now on, by identity, each with its node's address where that is known.
            trial_devices: that each of them holds.
            now: seconds on a steady clock.
        """
        now = time.monotonic() if now is None else now
        if self._now is not None:
            self._charge(phase, now - self._now[0], *self._now[1:], trial_devices)
        before = self._now[1] if self._now else ()
        self._now = (now, before if nodes is None else nodes, running or {})
        if now - self._saved >= SAVE_S:
            self.save()
            self._saved = now

    def _charge(
        self, phase: Phase, seconds: float, nodes: Sequence[Node], running: Mapping[str, str | None], devices: float
    ) -> None:
        hours, total = seconds / HOUR, self.phases[phase]
        total["seconds"] += seconds
        for node in nodes:
            entry = self.nodes.setdefault(node.type, {"seconds": 0.0, "usd": 0.0, "usd_per_hour": node.usd_per_hour})
            usd = hours * (node.usd_per_hour or 0.0)
            entry["seconds"] += seconds
            entry["usd"] += usd
            total["usd"] += usd
            total["device_seconds"] += seconds * node.devices
        for identity, address in running.items():
            trial = self.trial(identity)
            trial["seconds"] += seconds
            trial["device_seconds"] += seconds * devices
            trial["usd"] += hours * devices * device_price(nodes, address)

    def trial(self, identity: str) -> dict[str, Any]:
        """A trial's entry, made where there is none; its `status` is running, ended or budget (stopped for it)."""
        fresh = {"seconds": 0.0, "device_seconds": 0.0, "usd": 0.0, "status": "running"}
        return self.trials.setdefault(identity, fresh)

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(phase["seconds"] for phase in self.phases.values())

    @property
    def usd(self) -> float:
        """Of all phases; nodes without a price cost nothing here."""
        return sum(phase["usd"] for phase in self.phases.values())

    @property
    def usd_per_hour(self) -> float:
        """Of the nodes that were alive at the last tick."""
        return sum(node.usd_per_hour or 0.0 for node in (self._now[1] if self._now else ()))

    @property
    def is_priced(self) -> bool:
        """Whether every node so far had a price."""
        return bool(self.nodes) and all(entry["usd_per_hour"] is not None for entry in self.nodes.values())

    def save(self) -> None:
        """Write the file."""
        names = ("unit", "phases", "nodes", "trials", "evaluation_seconds")
        write_json(self.path, {name: getattr(self, name) for name in names})


def device_price(nodes: Sequence[Node], address: str | None) -> float:
    """Dollars an hour of one device of the node at an address: its share of the node's price.

    Where the address is not known, or a trial's workers may be on several nodes, it is the mean over all devices.
    """
    holders = [node for node in nodes if node.devices > 0]
    here = [node for node in holders if node.address == address] or holders
    devices = sum(node.devices for node in here)
    return sum(node.usd_per_hour or 0.0 for node in here) / devices if devices else 0.0
