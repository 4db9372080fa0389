"""One trial's settings: the defaults, what the sampler chose and what the user fixed, resolved into typed configs.

A setting's key is `part.field`, as in `views.crop_min`, `method.temperature`, `optimiser.lr` and `probe.C`. Of the
pretraining run's own fields only `pretrain.seed` is one: the others decide what a trial costs, and have flags.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from scarce import views
from scarce.config import PretrainConfig
from scarce.errors import UserError
from scarce.fewshot import probe
from scarce.fewshot.probe import ProbeConfig
from scarce.files import stable_hash
from scarce.methods import find_method
from scarce.pretrain import Recipe, count_steps
from scarce.space import Dimension

Value = bool | int | float | str


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a trial computes, data apart."""

    recipe: Recipe
    probe: ProbeConfig

    def identity(self, data_digests: Iterable[str], protocol: Any) -> str:
        """Twelve hex digits that name this trial: equal settings, seed, data and protocol give the same."""
        return stable_hash([asdict(self), sorted(data_digests), asdict(protocol)])[:12]


def default_settings(config: PretrainConfig, images: int) -> Settings:
    """The settings nobody touched: the defaults of the method (for so many images), the views and the probe."""
    method = find_method(config.method)
    steps = count_steps(config, images)
    recipe = Recipe(config, method.default_config(images, steps), method.OPTIMISER, views.ViewConfig())
    return Settings(recipe, ProbeConfig())


def search_space(config: PretrainConfig) -> dict[str, Dimension]:
    """Every dimension that the views, the method and the probe declare, by key."""
    method = find_method(config.method)
    spaces: dict[str, dict[str, Dimension]] = {
        "views": {name: d for name, d in views.SEARCH_SPACE.items() if name not in method.UNUSED_VIEWS},
        "method": method.SEARCH_SPACE,
        "probe": probe.SEARCH_SPACE,
    }
    return {f"{part}.{name}": dimension for part, space in spaces.items() for name, dimension in space.items()}


def override(settings: Settings, values: Mapping[str, Value]) -> Settings:
    """`settings` with some values replaced, by key. `UserError` for an unknown key or a value that does not fit."""
    parts = _parts(settings)
    for key, value in values.items():
        part, _, name = key.partition(".")
        if key not in _values(settings):
            raise UserError(f"no setting {key!r}: expected one of {', '.join(sorted(_values(settings)))}")
        try:
            parts[part] = replace(parts[part], **{name: value})
        except ValueError as error:
            raise UserError(f"{key}={value}: {error}") from error
    probe_config = parts.pop("probe")
    return Settings(replace(settings.recipe, **parts), probe_config)


def parse_fixed(settings: Settings, assignments: Iterable[str]) -> dict[str, Value]:
    """KEY=VALUE strings as values of each setting's type. `UserError` where one cannot be read."""
    values: dict[str, Value] = {}
    known = _values(settings)
    for assignment in assignments:
        key, equals, text = (piece.strip() for piece in assignment.partition("="))
        if not equals or key not in known:
            raise UserError(f"--fix {assignment}: expected KEY=VALUE with KEY one of {', '.join(sorted(known))}")
        kind = type(known[key])
        try:
            values[key] = kind(text)
        except ValueError as error:
            raise UserError(f"--fix {assignment}: expected {kind.__name__} after {key}=") from error
    return values


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
        "probe": settings.probe,
    }


def _values(settings: Settings) -> dict[str, Value]:
    return {
        f"{part}.{field.name}": getattr(owner, field.name)
        for part, owner in _parts(settings).items()
        for field in fields(owner)
        if part != "pretrain" or field.name == "seed"
    }
