"""The reference, made from the docstrings: open OUT/index.html.

python docs/make_reference.py build/reference                                                (`make reference`)
"""

import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pdoc

import scarce


def modules() -> list[str]:
    """The package and what lies directly in it; pdoc finds what lies deeper."""
    for name in scarce.__all__:  # which pdoc looks for among the modules until it is imported
        setattr(scarce, name, getattr(scarce, name))
    return ["scarce", *(module.name for module in pkgutil.iter_modules(scarce.__path__, "scarce."))]


def write_reference(out: Path, names: Iterable[str]) -> None:
    """Write a page for each of the modules to the folder `out`."""
    pdoc.render.configure(docformat="google", footer_text=f"scarce {scarce.__version__}")
    pdoc.pdoc(*names, output_directory=out)


if __name__ == "__main__":
    write_reference(Path(sys.argv[1]), modules())
