"""Phantom chests: the anatomy of a frontal film as sums of X-ray attenuation, for a batch of images at once.

Coordinates: `u` runs from -1 at the image's left edge (the patient's right) to 1, `v` from 0 above the shoulders to 1
in the upper abdomen. Every parameter is an array [B, 1, 1], every picture float32 [B, S, S]; nothing depends on the
rest of the batch.
"""

from dataclasses import dataclass

import numpy as np

Parameters = dict[str, np.ndarray]
RIB_PAIRS = 9
VESSELS = 9  # a lung

# Mean and standard deviation over adults, in the coordinates above.
_PATIENT = {
    "thorax_width": (0.80, 0.035),  # from the midline to the inner chest wall, at its widest
    "apex": (0.135, 0.015),  # v of the lungs' tops
    "dome_right": (0.735, 0.02),  # v of the right hemidiaphragm's top
    "dome_drop": (0.03, 0.01),  # how much lower the left one is
    "dome_curve": (0.17, 0.03),
    "heart_width": (0.36, 0.035),
    "heart_height": (0.21, 0.015),
    "heart_shift": (0.13, 0.025),
    "mediastinum": (0.13, 0.015),
    "aortic_knob": (0.085, 0.02),
    "hilum": (0.75, 0.15),
    "rib_slope": (0.16, 0.035),
    "rib_density": (0.13, 0.025),
    "rib_spacing": (0.074, 0.003),
    "clavicle": (0.19, 0.015),
    "spine": (0.20, 0.04),
    "vessels": (0.17, 0.03),
    "tissue": (0.0, 0.09),  # habitus: more tissue over everything
    "scoliosis": (0.0, 0.02),
}
# Between two films of one patient.
_FILM = {
    "shift_u": (0.0, 0.035),
    "shift_v": (0.0, 0.015),
    "zoom": (1.0, 0.025),
    "tilt": (0.0, 0.02),  # radians
    "inspiration": (0.0, 0.015),  # v by which both domes move
}


def draw_patient(rng: np.random.Generator, sex: str) -> dict[str, float]:
    """One adult's anatomy; the numbers stay with the patient."""
    patient = {name: float(rng.normal(mean, sd)) for name, (mean, sd) in _PATIENT.items()}
    patient["breast"] = float(rng.uniform(0.04, 0.12)) if sex == "F" else 0.0
    patient["bubble"] = float(rng.uniform(0.0, 0.25))  # gas in the stomach
    patient["vessel_phase"] = float(rng.uniform(0, 2 * np.pi))
    return patient


def draw_film(rng: np.random.Generator, view: str) -> dict[str, float]:
    """One film's position. AP films are taken lying or sitting: a larger heart, high clavicles, a shallow breath."""
    film = {name: float(rng.normal(mean, sd)) for name, (mean, sd) in _FILM.items()}
    film["supine"] = 1.0 if view == "AP" else 0.0
    return film


def stack(parameters: list[dict[str, float]]) -> Parameters:
    """Parameters of B images as arrays [B, 1, 1]."""
    names = parameters[0].keys()
    return {name: np.array([p[name] for p in parameters], np.float32).reshape(-1, 1, 1) for name in names}


@dataclass(frozen=True)
class Grid:
    """Where each pixel of each image lies in the chest: float32 [B, S, S]."""

    u: np.ndarray
    v: np.ndarray

    @staticmethod
    def of(p: Parameters, size: int, field_of_view: np.ndarray) -> "Grid":
        """Pixel centres, moved, turned and scaled by each film's position and each hospital's field of view."""
        line = (np.arange(size, dtype=np.float32) + 0.5) / size
        x, y = (line[None, None, :] * 2 - 1), (line[None, :, None] * 2 - 1)
        scale = field_of_view / p["zoom"]
        cos, sin = np.cos(p["tilt"]), np.sin(p["tilt"])
        return Grid((cos * x - sin * y) * scale + p["shift_u"], ((sin * x + cos * y) * scale + 1) / 2 + p["shift_v"])


def ramp(x: np.ndarray, softness: float) -> np.ndarray:
    """0 for x well below 0, 1 well above, with an edge of width `softness`."""
    return np.clip(x / softness + 0.5, 0, 1)


def bump(x: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """A bell of height 1: exp(-(x / width)²)."""
    return np.exp(-np.minimum((x / width) ** 2, 30))


@dataclass(frozen=True)
class Chest:
    """A drawn chest: its attenuation and what findings need to know of it."""

    grid: Grid
    attenuation: np.ndarray  # 0 is air
    lungs: np.ndarray  # share of each pixel that is aerated lung, [0, 1]
    p: Parameters


def dome(p: Parameters, u: np.ndarray) -> np.ndarray:
    """v of the diaphragm over each u; `raised_right` and `raised_left` lift one half."""
    right = u < 0
    top = p["dome_right"] - 0.05 * p["supine"] + p["inspiration"] + np.where(right, 0, p["dome_drop"])
    top = top - np.where(right, p["raised_right"], p["raised_left"])
    centre = np.where(right, -0.40, 0.42)
    return top + p["dome_curve"] * ((np.abs(u - centre) / 0.42) ** 2.2)


def draw_chest(p: Parameters, size: int, field_of_view: np.ndarray) -> Chest:
    """Draw B chests; `p` holds what `draw_patient`, `draw_film` and the findings decided."""
    grid = Grid.of(p, size, field_of_view)
    u, v = grid.u - p["scoliosis"] * np.sin(3 * grid.v), grid.v
    side = np.abs(u)
    rise = np.clip((v - p["apex"] + 0.015) / 0.46, 1e-4, 1)
    wall = p["thorax_width"] * (1 - (1 - rise) ** 2.2) ** 0.62
    diaphragm = dome(p, u)

    heart = _heart(p, u, v)
    centre = p["mediastinum"] * (1 + 0.35 * ramp(0.22 - v, 0.15)) + 0.5 * bump(v - 0.95, 0.25) * 0.1
    lungs = ramp(wall - side, 0.06) * ramp(diaphragm - v, 0.03) * ramp(side - centre, 0.07)
    lungs = lungs * ramp(v - p["apex"] - 0.10 * (side - 0.38) ** 2, 0.05)

    shoulders = 0.02 + 0.13 * np.minimum(side / 0.8, 1.2) ** 1.5 - 0.16 * bump(side, 0.24)
    body = ramp(v - shoulders, 0.05)
    body = body * ramp(p["thorax_width"] + 0.15 + 0.5 * bump(np.maximum(v - 0.12, 0), 0.22) - side, 0.08)
    abdomen = ramp(v - diaphragm, 0.04) * ramp(wall + 0.10 - side, 0.10)
    attenuation = body * (0.72 + p["tissue"] + 0.10 * (1 - np.minimum(side, 1) ** 2)) + 0.12 * abdomen * body
    attenuation = attenuation - 0.58 * lungs * body
    attenuation = attenuation + 0.34 * heart * ramp(v - 0.3, 0.1) * ramp(diaphragm + 0.06 - v, 0.08)
    attenuation = attenuation + _midline(p, u, v, side) + _bones(p, u, v, side, wall) * body
    attenuation = attenuation + lungs * _vessels(p, u, v, side)
    attenuation = attenuation + p["breast"] * bump(side - 0.42, 0.28) * bump(v - 0.68, 0.13)
    bubble = bump(u - 0.36, 0.13) * bump(v - diaphragm - 0.065, 0.035)
    attenuation = attenuation - p["bubble"] * bubble * ramp(v - diaphragm, 0.02)
    return Chest(grid, attenuation, lungs * (1 - heart), p)


def _heart(p: Parameters, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Left ventricle, right atrium and aortic knob, as a share in [0, 1]."""
    grow = 1 + 0.16 * p["supine"]
    dv = v - 0.63 + 0.03 * p["supine"] - 0.3 * p["inspiration"]
    du = u - p["heart_shift"]
    along, across = 0.90 * du + 0.44 * 2 * dv, 0.90 * 2 * dv - 0.44 * du
    ventricle = ramp(1 - (along / (p["heart_width"] * grow)) ** 2 - (across / (2 * p["heart_height"])) ** 2, 0.35)
    atrium = ramp(1 - ((u + 0.10) / (0.17 * grow)) ** 2 - (dv / 0.15) ** 2, 0.4)
    knob = ramp(1 - ((u - 0.13) / (p["aortic_knob"] + 0.02)) ** 2 - ((v - 0.355) / 0.05) ** 2, 0.5)
    return np.maximum(np.maximum(ventricle, atrium), 0.8 * knob)


def _midline(p: Parameters, u: np.ndarray, v: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Spine with its discs, the trachea's air, and the hila."""
    spine = p["spine"] * bump(u, 0.095) * (1 + 0.12 * np.cos(2 * np.pi * v / 0.062))
    trachea = -0.17 * bump(u + 0.01, 0.045) * ramp(v - 0.02, 0.05) * ramp(0.40 - v, 0.05)
    hila = bump(side - 0.20, 0.085) * bump(v - 0.475 - 0.02 * (u < 0), 0.075)
    return spine + trachea + 0.20 * p["hilum"] * hila


def rib_height(p: Parameters, pair: int | np.ndarray, side: np.ndarray) -> np.ndarray:
    """v of a posterior rib's middle at a distance from the midline."""
    return 0.10 + p["rib_spacing"] * pair + p["rib_slope"] * (side - 0.1) ** 2 - 0.04 * (side - 0.1)


def _bones(p: Parameters, u: np.ndarray, v: np.ndarray, side: np.ndarray, wall: np.ndarray) -> np.ndarray:
    inside = ramp(wall + 0.07 - side, 0.05)
    # All posterior ribs at once: each pixel only meets the nearest one, so take its distance modulo the spacing.
    place = (v - rib_height(p, 0, side)) / p["rib_spacing"]
    nearest = np.clip(np.round(place), 0, RIB_PAIRS)
    posterior = bump(place - nearest, 0.22) * ramp(side - 0.10, 0.05)
    rim = 0.4 * bump(np.abs(place - nearest) - 0.20, 0.09)
    # Anterior ribs run downwards to the midline and end in cartilage that casts no shadow.
    front = (v - (0.16 + p["rib_spacing"] * 1.0 + 0.33 * (0.75 - side))) / (1.12 * p["rib_spacing"])
    nearest_front = np.clip(np.round(front), 0, 6)
    anterior = 0.65 * bump(front - nearest_front, 0.20) * ramp(side - 0.33, 0.15)
    crowd = 1 + 0.7 * bump(side - wall, 0.10)  # the ribs turn forward at the wall, and are seen edge on
    ribs = p["rib_density"] * inside * crowd * ((posterior + rim * ramp(side - 0.10, 0.05)) + anterior)

    lift = 0.045 * p["supine"]
    clavicle_v = p["clavicle"] - lift - 0.075 * (side - 0.1) + 0.035 * np.sin(5.2 * (side - 0.1))
    clavicle = 0.17 * bump(v - clavicle_v, 0.019) * ramp(side - 0.09, 0.04) * ramp(0.83 - side, 0.1)
    scapula = 0.07 * bump(side - (0.88 - 0.25 * (v - 0.3)), 0.075) * ramp(v - 0.16, 0.08) * ramp(0.55 - v, 0.15)
    return ribs + clavicle + scapula


def _vessels(p: Parameters, u: np.ndarray, v: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Branches that leave the hilum, thin out and fade towards the wall; the lower ones are thicker."""
    du, dv = side - 0.17, 2 * (v - 0.475)
    distance = np.sqrt(du**2 + dv**2) + 1e-3
    angle = np.arctan2(dv, du)
    total = np.zeros_like(u)
    for branch in range(VESSELS):
        phase = p["vessel_phase"] + 2.4 * branch + 1.3 * (u > 0)
        direction = -1.25 + 2.75 * branch / (VESSELS - 1) + 0.12 * np.sin(phase)
        bend = direction + 0.22 * np.sin(3.5 * distance + phase) * distance
        gap = (angle - bend) * distance
        total += (0.8 + 0.06 * branch) * bump(gap, 0.026 - 0.012 * np.minimum(distance, 1))
    return p["vessels"] * total * np.exp(-1.7 * distance) * ramp(distance - 0.03, 0.05)
