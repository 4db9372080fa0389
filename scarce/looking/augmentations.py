"""One film under each augmentation, weak to strong, and under all of them: is it still the same patient's chest?"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scarce.looking.sheet import Row
from scarce.space import Choice, Dimension
from scarce.views import NO_AUGMENTATION, SEARCH_SPACE, ViewConfig, ViewParameters, draw_parameters, make_views
from scarce.watching.view_samples import grey_levels, sample_views

STEPS = 5  # values of a field's range
DRAWN = 64  # views of which the one farthest from the film is shown
INTENSITY = ("brightness", "contrast", "gamma")
LOOKS = ("brightness", "contrast", "gamma", "blur", "noise")  # the others move or hide parts of the chest


@dataclass(frozen=True)
class _Extreme:
    """A field of the search space, and which of many views shows most of it."""

    field: str
    note: str  # what is shown
    caption: Callable[[float], str]  # of a value
    strength: Callable[[ViewParameters], Tensor]  # [B]; the view with the most is shown


def _share(value: float) -> str:
    return f"in {100 * value:.0f}% of views"


EXTREMES = (
    _Extreme("crop_min", "the smallest crop", lambda v: f"{100 * v:.0f}% of the area", lambda p: -p.height * p.width),
    _Extreme("rotation", "the largest angle", lambda v: f"up to {v:.0f}°", lambda p: p.angle.abs()),
    _Extreme("flip", "mirrored", _share, lambda p: p.mirrored),
    _Extreme("brightness", "the darkest", lambda v: f"± {v:.2g}", lambda p: -p.brightness),
    _Extreme("brightness", "the brightest", lambda v: f"± {v:.2g}", lambda p: p.brightness),
    _Extreme("contrast", "the flattest", lambda v: f"± {v:.2g}", lambda p: -p.contrast),
    _Extreme("contrast", "the hardest", lambda v: f"± {v:.2g}", lambda p: p.contrast),
    _Extreme("gamma", "the darkest", lambda v: f"± {v:.2g}", lambda p: p.gamma),
    _Extreme("gamma", "the brightest", lambda v: f"± {v:.2g}", lambda p: -p.gamma),
    _Extreme("blur", "the most blurred", _share, lambda p: p.sigma),
    _Extreme("noise", "the noisiest", lambda v: f"s.d. up to {v:.2g}", lambda p: p.noise),
    _Extreme("cutout", "the largest hole", _share, lambda p: p.cut_height * p.cut_width),
)


def one_by_one(image: np.ndarray, size: int, seed: int) -> list[Row]:
    """A row for every field of `views.SEARCH_SPACE`, with values across its range and all other augmentations off.

    Of each value the farthest of 64 random views is shown, the same draws for all values. Brightness, contrast and
    gamma, which go two ways, have two rows. Blur, cut-out and mirroring are searched by how often they happen, so their
    pictures change only from never to sometimes.

    Args:
        image: uint8 [H, W].
        size: side of the views, pixels.
        seed: of the draws.
    """
    rows = []
    for extreme in EXTREMES:
        values = weak_to_strong(extreme.field)
        images = [_farthest(image, size, _alone(extreme.field, value), extreme.strength, seed) for value in values]
        rows.append(Row(extreme.field, extreme.note, np.stack(images), [extreme.caption(value) for value in values]))
    return rows


def together(image: np.ndarray, size: int, seed: int, count: int = 6) -> list[Row]:
    """Rows of `count` random views with all augmentations at once: the ends and corners of the space, and the default.

    Args:
        image: uint8 [H, W].
        size: side of the views, pixels.
        seed: of the views, the same for all rows.
        count: views a row.
    """
    weak, strong = ({name: weak_to_strong(name)[end] for name in SEARCH_SPACE} for end in (0, -1))
    looks = {name: strong[name] for name in LOOKS}
    settings = (
        ("weak", "every field at its weak end", replace(ViewConfig(), **weak)),
        ("default", "where a search begins", ViewConfig()),
        (
            "strong looks",
            "intensity, blur and noise at their strong end, the rest weak",
            replace(ViewConfig(), **weak | looks),
        ),
        (
            "strong geometry",
            "crop, rotation, mirroring and cut-out strong, the rest weak",
            replace(ViewConfig(), **strong | {name: weak[name] for name in LOOKS}),
        ),
        ("strong", "every field at its strong end", replace(ViewConfig(), **strong)),
    )
    film = sample_views(image[None], size, NO_AUGMENTATION, 1)[0]
    rows = [Row("the film", "", film, [""])]
    for name, note, config in settings:
        rows.append(Row(name, note, sample_views(image[None], size, config, count, seed)[0], [""] * count))
    return rows


def weak_to_strong(field: str) -> list[float]:
    """Values of a field across its range in `views.SEARCH_SPACE`, by how far views get from their film."""
    dimension: Dimension = SEARCH_SPACE[field]
    if isinstance(dimension, Choice):
        return [float(value) for value in dimension.values]
    values: list[float] = np.linspace(dimension.low, dimension.high, STEPS).tolist()
    return values[::-1] if field == "crop_min" else values  # a small crop is the strong one


def _alone(field: str, value: float) -> ViewConfig:
    return replace(NO_AUGMENTATION, **{field: value}, intensity_p=float(field in INTENSITY))


def _farthest(
    image: np.ndarray, size: int, config: ViewConfig, strength: Callable[[ViewParameters], Tensor], seed: int
) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    drawn = draw_parameters(DRAWN, size, config, generator)
    row = int(strength(drawn).argmax())
    view = make_views(torch.from_numpy(image[None]), size, config, drawn.rows(slice(row, row + 1)), generator)
    film: np.ndarray = grey_levels(view)[0]
    return film
