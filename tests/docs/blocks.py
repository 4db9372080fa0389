"""The code blocks of a page of the documentation, to be run by its test."""

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r'^```(\w+) ?(?:title=)?"?([^"\n]*)"?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of a page."""

    language: str
    title: str  # what follows the language: of a file its path
    text: str


def blocks(page: str) -> list[Block]:
    """The blocks of docs/`page`, in order."""
    return [Block(*match.groups(default="")) for match in _BLOCK.finditer((DOCS / page).read_text(encoding="utf-8"))]


def commands(text: str) -> list[str]:
    """The commands of a bash block, those of several lines joined, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]
