"""A run's folder: made once with everything that decided it, and checked when the run is gone on with."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from scarce.config import RunConfig
from scarce.errors import UserError
from scarce.files import write_json
from scarce.provenance import describe_environment

CONFIG_NAME = "config.json"
SUMMARY_NAME = "summary.json"


class RunSettings(Protocol):
    """Any script's settings: a dataclass that says, among other things, where the run lives."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def run(self) -> RunConfig:
        """Name, folder, resume or not."""


def prepare_folder(folder: Path, config: RunSettings, digests: tuple[str, ...]) -> None:
    """Make the run's folder with its config.json, or check that a run to resume was started with the same settings."""
    path = folder / CONFIG_NAME
    settings = json.loads(json.dumps({"config": asdict(config), "datasets": digests}))
    settings["config"].pop("run")
    if not path.exists():
        if config.run.resume:
            raise UserError(f"nothing to resume in {folder}: start the run without --resume")
        write_json(path, {**settings, "environment": describe_environment()})
        return
    if not config.run.resume:
        raise UserError(f"{folder} holds a run already: go on with it by --resume, or choose another --name")
    before = json.loads(path.read_text(encoding="utf-8"))
    for part in ("config", "datasets"):
        if before[part] != settings[part]:
            raise UserError(
                f"{folder} was started with other settings ({_first_difference(before[part], settings[part])}): "
                "resume with the same ones, or choose another --name"
            )


def _first_difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                return _first_difference(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    return f"{path or 'datasets'} was {before}, now {now}"
