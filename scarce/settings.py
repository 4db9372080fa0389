"""One trial's settings: the defaults, what the sampler chose and what the user fixed, resolved into typed configs.

A setting's key is `part.field`, as in `views.crop_min`, `method.temperature`, `optimiser.lr` and `probe.C`. Of the
pretraining run's own fields only `pretrain.seed` is one: the others decide what a trial costs, and have flags.

Probes cost next to nothing beside pretraining, so a trial tries a grid of them on every checkpoint, and the sampler
does not spend a pretraining on each. `probe.*` is a setting that can be fixed, for all probes of the grid.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from scarce import views
from scarce.config import PretrainConfig
from scarce.errors import UserError
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.probe_search import PROBE_GRID
from scarce.files import stable_hash
from scarce.methods import find_method
from scarce.pretrain import Recipe, count_held_out, count_steps
from scarce.space import Dimension

Value = bool | int | float | str


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a trial computes, data apart."""

    recipe: Recipe
    probes: tuple[ProbeConfig, ...]  # of which every report takes the best on val

    def identity(self, data_digests: Iterable[str], protocol: Any) -> str:
        """Twelve hex digits that name this trial: equal settings, seed, data and protocol give the same."""
        return stable_hash([asdict(self), sorted(data_digests), asdict(protocol)])[:12]


def default_settings(config: PretrainConfig, images: int) -> Settings:
    """The settings nobody touched: the defaults of the method (for so many images) and the views, and all probes.

    Raises:
        UserError: there is no such method, or a batch has more images than are trained on.
    """
    method = find_method(config.method)
    trained = images - count_held_out(images)
    if config.batch_size > trained:
        raise UserError(
            f"--batch-size {config.batch_size} is more than the {max(trained, 0)} of {images} pretraining images that "
            "are trained on: expected a smaller one, or another --pretrain"
        )
    steps = count_steps(config, images)
    recipe = Recipe(config, method.default_config(images, steps), method.OPTIMISER, views.ViewConfig())
    return Settings(recipe, PROBE_GRID)


def search_space(config: PretrainConfig) -> dict[str, Dimension]:
    """Every dimension that the views and the method declare, by key."""
    method = find_method(config.method)
    spaces: dict[str, dict[str, Dimension]] = {
        "views": {name: d for name, d in views.SEARCH_SPACE.items() if name not in method.UNUSED_VIEWS},
        "method": method.SEARCH_SPACE,
    }
    return {f"{part}.{name}": dimension for part, space in spaces.items() for name, dimension in space.items()}


def override(settings: Settings, values: Mapping[str, Value]) -> Settings:
    """`settings` with some values replaced, by key. `UserError` for an unknown key or a value that does not fit."""
    parts, probes = _parts(settings), settings.probes
    for key, value in values.items():
        part, _, name = key.partition(".")
        if key not in _values(settings):
            raise UserError(f"no setting {key!r}: expected one of {', '.join(sorted(_values(settings)))}")
        changed: dict[str, Any] = {name: value}
        try:
            if part == "probe":
                probes = tuple(dict.fromkeys(replace(probe, **changed) for probe in probes))
            else:
                parts[part] = replace(parts[part], **changed)
        except ValueError as error:
            raise UserError(f"{key}={value}: {error}") from error
    del parts["probe"]
    return Settings(replace(settings.recipe, **parts), probes)


def parse_fixed(settings: Settings, assignments: Iterable[str]) -> dict[str, Value]:
    """KEY=VALUE strings as values of each setting's type. `UserError` where one cannot be read."""
    values: dict[str, Value] = {}
    known = _values(settings)
    for assignment in assignments:
        key, equals, text = (piece.strip() for piece in assignment.partition("="))
        if not equals or key not in known:
            raise UserError(f"--fix {assignment}: expected KEY=VALUE with KEY one of {', '.join(sorted(known))}")
        try:
            values[key] = _read(key, text, known[key])
        except ValueError as error:
            raise UserError(f"--fix {assignment}: expected {error} after {key}=") from error
    return values


# What a setting of such a name is, in every method and optimiser.
_POSITIVE = (
    *("temperature", "temperature_start", "dim", "queue", "expansion", "bottleneck", "prototypes"),
    *("decoder_width", "mask", "crop_min", "lr", "reference_batch"),
)
_SHARES = ("momentum", "mask", "crop_min", "teacher_warmup", "freeze_prototypes")


def _read(key: str, text: str, default: Value) -> Value:
    """A setting's value from the command line. The message of a `ValueError` says what it should be."""
    name = key.partition(".")[2]
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return text.lower() == "true"
    if isinstance(default, str):
        if key == "optimiser.name" and text not in ("sgd", "adamw"):
            raise ValueError("sgd or adamw")
        return text
    try:
        value = type(default)(text)
    except ValueError:
        raise ValueError("a whole number" if isinstance(default, int) else "a number") from None
    if not 0 <= value < math.inf or (value == 0 and name.endswith(_POSITIVE)):
        raise ValueError("a positive number" if name.endswith(_POSITIVE) else "a number of at least 0")
    if value > 1 and name.endswith(_SHARES):
        raise ValueError("a number of at most 1")
    return value


def values_of(settings: Settings, keys: Iterable[str]) -> dict[str, Value]:
    """The current value of some keys."""
    known = _values(settings)
    return {key: known[key] for key in keys}


def _parts(settings: Settings) -> dict[str, Any]:
    recipe = settings.recipe
    return {
        "views": recipe.views,
        "method": recipe.method,
        "optimiser": recipe.optimiser,
        "pretrain": recipe.pretrain,
        "probe": settings.probes[0],
    }


def _values(settings: Settings) -> dict[str, Value]:
    return {
        f"{part}.{field.name}": getattr(owner, field.name)
        for part, owner in _parts(settings).items()
        for field in fields(owner)
        if part != "pretrain" or field.name == "seed"
    }
