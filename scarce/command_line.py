"""A script's command line: its settings' dataclass over the defaults of a preset, made by tyro."""

from collections.abc import Mapping
from typing import TypeVar

import tyro

from scarce.errors import UserError

Config = TypeVar("Config")


def parse(arguments: list[str], presets: Mapping[str, Config], description: str, prog: str | None = None) -> Config:
    """The settings that the arguments name, over those of `--preset` (the first preset by default).

    `prog` is the command's name in the help, by default the script's.

    Raises:
        UserError: there is no such preset.
        SystemExit: tyro's, for --help (0) and for arguments that do not fit (2).
    """
    preset, rest = next(iter(presets)), []
    words = iter(arguments)
    for word in words:
        if word == "--preset":
            preset = next(words, "")
        elif word.startswith("--preset="):
            preset = word.partition("=")[2]
        else:
            rest.append(word)
    if preset not in presets:
        raise UserError(f"--preset {preset}: expected one of {', '.join(presets)}")
    return tyro.cli(
        type(presets[preset]),
        prog=prog,
        args=rest,
        default=presets[preset],
        description=f"{description}\nThe defaults below are those of --preset {preset}; presets: {', '.join(presets)}.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
