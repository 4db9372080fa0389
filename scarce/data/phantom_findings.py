"""The ten findings of the reference list, drawn on a phantom chest as they look on film.

Each finding has parameters that stay with the patient (side, place, size, severity), a drawing that adds attenuation
to a batch, and a box around it in chest coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scarce.data.phantom_anatomy import Chest, Parameters, bump, dome, ramp, rib_height

Box = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # u from, v from, u to, v to; [B, 1, 1] each
Draw = Callable[[Chest, Parameters], np.ndarray]
Locate = Callable[[Chest, Parameters], Box]


def draw_finding(rng: np.random.Generator) -> dict[str, float]:
    """What a patient's finding is like, whichever it is; `present` is set by the caller."""
    return {
        "present": 1.0,
        "side": -1.0 if rng.random() < 0.5 else 1.0,
        "across": float(rng.uniform(0, 1)),  # place between midline and wall
        "down": float(rng.uniform(0, 1)),  # place between top and bottom
        "size": float(rng.uniform(0, 1)),
        "severity": float(rng.uniform(0.75, 1.25)),
        "angle": float(rng.uniform(0, np.pi)),
        "phase": float(rng.uniform(0, 2 * np.pi)),
    }


ABSENT = dict.fromkeys(("present", "side", "across", "down", "size", "severity", "angle", "phase"), 0.0)


def _centre(f: Parameters, across: tuple[float, float], down: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    u = f["side"] * (across[0] + (across[1] - across[0]) * f["across"])
    return u, down[0] + (down[1] - down[0]) * f["down"]


def _around(u: np.ndarray, v: np.ndarray, half_u: np.ndarray | float, half_v: np.ndarray | float) -> Box:
    return u - half_u, v - half_v, u + half_u, v + half_v


def _radius(chest: Chest, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance from (u, v), in units of u (a unit of v is two of u)."""
    return np.sqrt((chest.grid.u - u) ** 2 + (2 * (chest.grid.v - v)) ** 2)


def _mass_place(chest: Chest, f: Parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return *_centre(f, (0.34, 0.56), (0.30, 0.62)), 0.10 + 0.07 * f["size"]


def _mass(chest: Chest, f: Parameters) -> np.ndarray:
    """A round opacity with a lobulated, soft edge."""
    u, v, radius = _mass_place(chest, f)
    turn = np.arctan2(2 * (chest.grid.v - v), chest.grid.u - u)
    edge = radius * (1 + 0.10 * np.sin(3 * turn + f["phase"]))
    return 0.30 * ramp(edge - _radius(chest, u, v), 0.06)


def _mass_box(chest: Chest, f: Parameters) -> Box:
    u, v, radius = _mass_place(chest, f)
    return _around(u, v, 1.1 * radius, 0.55 * radius)


def _granuloma_place(chest: Chest, f: Parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return *_centre(f, (0.28, 0.62), (0.26, 0.62)), 0.030 + 0.016 * f["size"]


def _granuloma(chest: Chest, f: Parameters) -> np.ndarray:
    """A small, dense, sharply bounded dot."""
    u, v, radius = _granuloma_place(chest, f)
    return 0.62 * ramp(radius - _radius(chest, u, v), 0.03)


def _granuloma_box(chest: Chest, f: Parameters) -> Box:
    u, v, radius = _granuloma_place(chest, f)
    return _around(u, v, 1.6 * radius, 0.8 * radius)


def _callus_place(chest: Chest, f: Parameters) -> tuple[np.ndarray, np.ndarray]:
    side = 0.56 + 0.12 * f["across"]
    return f["side"] * side, rib_height(chest.p, np.round(3 + 3 * f["down"]), side)


def _callus(chest: Chest, f: Parameters) -> np.ndarray:
    """A spindle of new bone around a lateral rib."""
    u, v = _callus_place(chest, f)
    return 0.42 * bump(chest.grid.u - u, 0.085) * bump(chest.grid.v - v, 0.024 + 0.006 * f["size"])


def _callus_box(chest: Chest, f: Parameters) -> Box:
    return _around(*_callus_place(chest, f), 0.11, 0.035)


def _band_place(chest: Chest, f: Parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    u, v = _centre(f, (0.38, 0.50), (0.42, 0.62))
    return u, v, 0.20 + 0.08 * f["size"], 0.9 * (f["angle"] / np.pi - 0.5)


def _band(chest: Chest, f: Parameters) -> np.ndarray:
    """A thin straight scar across the lung."""
    u, v, length, tilt = _band_place(chest, f)
    du, dv = chest.grid.u - u, 2 * (chest.grid.v - v)
    along, across = np.cos(tilt) * du + np.sin(tilt) * dv, np.cos(tilt) * dv - np.sin(tilt) * du
    return 0.38 * bump(across, 0.028) * ramp(length - np.abs(along), 0.08)


def _band_box(chest: Chest, f: Parameters) -> Box:
    u, v, length, tilt = _band_place(chest, f)
    return _around(u, v, np.cos(tilt) * length + 0.02, np.abs(np.sin(tilt)) * length / 2 + 0.02)


def _bronchiectasis_place(f: Parameters) -> tuple[np.ndarray, np.ndarray]:
    return _centre(f, (0.32, 0.42), (0.52, 0.62))


def _bronchiectasis(chest: Chest, f: Parameters) -> np.ndarray:
    """Widened bronchi: a cluster of rings with dark insides, and tram lines that lead to the hilum."""
    u, v = _bronchiectasis_place(f)
    total = np.zeros_like(chest.grid.u)
    for ring in range(5):
        turn = f["phase"] + ring * 1.2566
        r = _radius(chest, u + 0.11 * np.cos(turn), v + 0.06 * np.sin(turn))
        wide = 0.042 + 0.012 * np.sin(2.1 * ring + f["phase"])
        total += 0.34 * bump(r - wide, 0.018) - 0.14 * bump(r, 0.6 * wide)
    du, dv = chest.grid.u - f["side"] * 0.22, 2 * (chest.grid.v - 0.5)
    tu, tv = u - f["side"] * 0.22, 2 * (v - 0.5)
    length = np.sqrt(tu**2 + tv**2) + 1e-3
    along, across = (du * tu + dv * tv) / length, (dv * tu - du * tv) / length
    tram = bump(np.abs(across) - 0.04, 0.015) * ramp(along, 0.04) * ramp(length - along, 0.04)
    return total + 0.20 * tram


def _bronchiectasis_box(chest: Chest, f: Parameters) -> Box:
    return _around(*_bronchiectasis_place(f), 0.18, 0.10)


def _elevation_box(chest: Chest, f: Parameters) -> Box:
    u = f["side"] * 0.42
    v = dome(chest.p, u)
    return _around(u, v + 0.05, 0.36, 0.09)


def _hernia_place(f: Parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return 0.06 + 0.07 * (f["across"] - 0.5), 0.685 + 0.03 * f["down"], 0.15 + 0.04 * f["size"]


def _hernia(chest: Chest, f: Parameters) -> np.ndarray:
    """Stomach behind the heart: a round wall with gas above a horizontal fluid level."""
    u, v, radius = _hernia_place(f)
    r = _radius(chest, u, v)
    wall, inside = 0.20 * bump(r - radius, 0.03), ramp(radius - r, 0.03)
    gas = ramp(v - 0.01 - chest.grid.v, 0.015)
    return wall + inside * (0.16 * (1 - gas) - 0.30 * gas)


def _hernia_box(chest: Chest, f: Parameters) -> Box:
    u, v, radius = _hernia_place(f)
    return _around(u, v, radius + 0.03, radius / 2 + 0.015)


def _net(chest: Chest, f: Parameters, period: float, width: float, directions: int) -> np.ndarray:
    """Wavy lines in several directions that cross to a net with meshes of about `period`."""
    u, v = chest.grid.u, 2 * chest.grid.v
    total = np.zeros_like(u)
    for line in range(directions):
        turn = f["angle"] + line * np.pi / directions
        wave = 0.25 * period * np.sin(7 * (u * np.sin(turn) + v * np.cos(turn)) + f["phase"] + line)
        place = (u * np.cos(turn) - v * np.sin(turn) + wave) / period + f["phase"]
        total += bump(place - np.round(place), width)
    return np.minimum(total, 1.5)


def _basal(chest: Chest, start: float) -> np.ndarray:
    return ramp(chest.grid.v - start, 0.2)


def _interstitial(chest: Chest, f: Parameters) -> np.ndarray:
    """Fine lines and points all over both lungs."""
    fine = _net(chest, f, 0.11, 0.20, 2) * (0.75 + 0.5 * np.sin(23 * chest.grid.u + f["phase"]))
    return 0.15 * chest.lungs * fine


def _reticular(chest: Chest, f: Parameters) -> np.ndarray:
    """A net of lines in the lower two thirds of both lungs."""
    return 0.19 * chest.lungs * _net(chest, f, 0.16, 0.17, 3) * (0.15 + 0.85 * _basal(chest, 0.42))


def _fibrosis(chest: Chest, f: Parameters) -> np.ndarray:
    """Coarse strands and honeycombing at the bases and along the wall; the lungs shrink (see `FINDINGS`)."""
    outer = 0.25 + 0.75 * ramp(np.abs(chest.grid.u) - 0.40, 0.2)
    return 0.27 * chest.lungs * _net(chest, f, 0.22, 0.22, 3) * outer * _basal(chest, 0.50)


def _lung_box(top: float) -> Locate:
    def locate(chest: Chest, f: Parameters) -> Box:
        width, bottom = chest.p["thorax_width"], dome(chest.p, np.full_like(f["side"], -0.4)) + 0.08
        return -width, np.full_like(width, top), width, bottom

    return locate


def _nothing(chest: Chest, f: Parameters) -> np.ndarray:
    return np.zeros_like(chest.grid.u)


@dataclass(frozen=True)
class Finding:
    """How a finding is drawn and where it is."""

    draw: Draw
    locate: Locate
    raises_dome: float = 0.0  # v by which the hemidiaphragm on its side moves up
    raises_both: float = 0.0  # v by which both do


FINDINGS: dict[str, Finding] = {
    "bronchiectasis": Finding(_bronchiectasis, _bronchiectasis_box),
    "calcified granuloma": Finding(_granuloma, _granuloma_box),
    "callus rib fracture": Finding(_callus, _callus_box),
    "fibrotic band": Finding(_band, _band_box),
    "hemidiaphragm elevation": Finding(_nothing, _elevation_box, raises_dome=0.12),
    "hiatal hernia": Finding(_hernia, _hernia_box),
    "interstitial pattern": Finding(_interstitial, _lung_box(0.2)),
    "pulmonary fibrosis": Finding(_fibrosis, _lung_box(0.5), raises_both=0.04),
    "pulmonary mass": Finding(_mass, _mass_box),
    "reticular interstitial pattern": Finding(_reticular, _lung_box(0.35)),
}
