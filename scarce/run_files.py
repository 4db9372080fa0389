"""A run's folder: made once with everything that decided it, and checked when the run is gone on with."""

import json
import os
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from scarce.config import RunConfig
from scarce.errors import UserError
from scarce.files import write_json
from scarce.mirror import Mirror
from scarce.provenance import describe_environment

CONFIG_NAME = "config.json"
SUMMARY_NAME = "summary.json"


class RunSettings(Protocol):
    """Any script's settings: a dataclass that says, among other things, where the run lives."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def run(self) -> RunConfig:
        """Name, folder, resume or not."""


def prepare_folder(run: Mirror, config: RunSettings, digests: tuple[str, ...]) -> None:
    """Make the run's folder with its config.json, or check that a run to resume was started with the same settings."""
    check_folder(run, config, digests)
    path = run.folder / CONFIG_NAME
    if not path.exists():
        write_json(path, {**_settings(config, digests), "environment": describe_environment()})
        run.push_first(path)


def check_folder(run: Mirror, config: RunSettings, digests: tuple[str, ...]) -> None:
    """Whether the run can begin, or go on, in this folder. Writes nothing.

    Raises:
        UserError: there is a run already, or none to resume, or one with other settings, or one that others may have
            changed: Ray Tune keeps its state in pickles, and reading those runs what they say.
    """
    path = run.folder / CONFIG_NAME
    if not path.exists():
        if config.run.resume:
            raise UserError(f"nothing to resume in {run}: start the run without --resume")
        return
    if not config.run.resume:
        raise UserError(f"{run} holds a run already: go on with it by --resume, or choose another --name")
    _refuse_foreign(run.folder)
    settings = _settings(config, digests)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        before = {part: before[part] for part in settings}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not the config.json of a run ({error!r}): start anew under another --name"
        ) from error
    for part in settings:
        if before[part] != settings[part]:
            raise UserError(
                f"{run} was started with other settings ({_first_difference(before[part], settings[part])}): "
                "resume with the same ones, or choose another --name"
            )


def read_run_file(folder: Path, name: str) -> dict[str, Any]:
    """What a run's config.json, summary.json or the like holds; `UserError` where there is none, or it is damaged."""
    path = folder / name
    if not path.is_file():
        raise UserError(f"{folder} is not a finished run: expected {name} there")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): expected it as a sweep wrote it") from error
    return content


def _settings(config: RunSettings, digests: tuple[str, ...]) -> dict[str, Any]:
    """What two runs have to agree on to be one, as it comes back from JSON."""
    settings: dict[str, Any] = json.loads(json.dumps({"config": asdict(config), "datasets": digests}))
    settings["config"].pop("run")
    return settings


def _refuse_foreign(folder: Path) -> None:
    """`UserError` where another user than this one and root owns the run, or everybody may write to it.

    Root is not asked for the owner: in a container that of a mounted folder says nothing.
    """
    for path in (folder, folder / CONFIG_NAME, *folder.glob("tune/*.pkl"), *folder.glob("*/*/tune/*.pkl")):
        status = path.stat()
        if os.getuid() not in (0, status.st_uid) and status.st_uid != 0:
            raise UserError(
                f"{path} belongs to another user, and resuming a run executes what its files say: resume only runs of "
                "your own, or make it yours with chown once you trust it"
            )
        if status.st_mode & stat.S_IWOTH:
            raise UserError(
                f"{path} can be written to by everyone, and resuming a run executes what its files say: "
                f"take that away with `chmod -R o-w {folder}` if you trust what is there"
            )


def _first_difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                return _first_difference(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    return f"{path or 'datasets'} was {before}, now {now}"
