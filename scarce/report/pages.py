"""Pages of a run: one file each with its pictures in it, which asks for nothing else and runs no script."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from scarce.files import write_text
from scarce.report.audit_plots import png

CSS_DPI = 96  # pixels of a page an inch


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a template of scarce/report/templates, filled in, to `path`, atomically. Text is escaped."""
    environment = Environment(
        loader=PackageLoader("scarce.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    write_text(path, environment.get_template(template).render(**values))


def picture(figure: Figure, text: str) -> dict[str, Any]:
    """A figure as a data URI with its size in pixels of a page; `text` says what is seen, for who can't see it."""
    width, height = (round(CSS_DPI * inches) for inches in figure.get_size_inches())
    return picture_of_png(png(figure), text, width, height)


def picture_of_png(content: bytes, text: str, width: int, height: int) -> dict[str, Any]:
    """The same of a finished PNG, to be shown at this width and height."""
    data = base64.b64encode(content).decode("ascii")
    return {"source": f"data:image/png;base64,{data}", "text": text, "width": width, "height": height}
