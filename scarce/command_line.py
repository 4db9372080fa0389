"""A script's command line: its settings' dataclass over the defaults of a preset, made by tyro."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import TypeVar

import tyro

from scarce.errors import EXITS, UserError

Config = TypeVar("Config")


def parse(arguments: list[str], presets: Mapping[str, Config], description: str, prog: str | None = None) -> Config:
    """The settings that the arguments name, over those of `--preset` (the first preset by default).

    `prog` is the command's name in the help, by default the script's.

    Raises:
        UserError: there is no such preset, or an argument does not fit.
        SystemExit: tyro's, for --help.
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
    with refusals_in_one_line():
        return tyro.cli(
            type(presets[preset]),
            prog=prog,
            args=rest,
            default=presets[preset],
            description=f"{description}\nThe defaults below are those of --preset {preset}; presets: "
            f"{', '.join(presets)}. {EXITS}",
            config=(tyro.conf.OmitArgPrefixes,),
        )


@contextmanager
def refusals_in_one_line() -> Iterator[None]:
    """Where tyro refuses arguments within the block, raise a `UserError` instead of showing its framed page."""
    shown = io.StringIO()
    try:
        with redirect_stderr(shown):
            yield
    except SystemExit as end:
        if end.code != 2:
            raise
        raise UserError(_condensed(shown.getvalue())) from None


def _condensed(page: str) -> str:
    """What tyro's page says is wrong, and which flags it offers instead, without its frame and the flags' help."""
    page = re.sub(r"\x1b\[[0-9;]*m", "", page)
    parts: list[list[str]] = [[]]
    for line in (line.strip("│ ") for line in page.splitlines() if not line.startswith(("╭", "╰"))):
        if line and not line.strip("─-"):
            parts.append([])
        elif line:
            parts[-1].append(line)
    if "╭" not in page:  # where stdout is no UTF-8, the title is a part, not in the frame
        del parts[0]
    reason = " ".join(parts[0])
    alike = [line.split()[0].rstrip(",") for part in parts[1:-1] for line in part if line.startswith("--")]
    offered = [flag for flag in dict.fromkeys(alike) if flag not in reason]
    hint = f"perhaps you meant {' or '.join(offered[:3])}; " if offered else ""
    return f"{reason.rstrip('.')}: {hint}see --help"
