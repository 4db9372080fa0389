"""What every table of bad input shares: a folder of good input to spoil, the commands, and what a refusal has to be."""

import importlib.util
import io
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from scarce import cli
from scarce.errors import run_or_exit

ROOT = Path(__file__).parents[2]
QUICK = (
    "--image-size 32 --batch-size 16 --shots 1 5 --search-seeds 2 --test-seeds 2 --min-pool 5 --min-held-out 2 "
    "--bootstrap 100"
)
# A command's first words, and the flags that make it a good one in the folder `world` makes.
COMMANDS = {
    "ssl_aug": f"--pretrain a --target b --out runs --name new --scratch-seeds 0 {QUICK}",
    "methods": f"--pretrain a --target b --out runs --name new {QUICK}",
    "probe": "--checkpoint run/best --target b --out runs --name new --min-pool 5 --min-held-out 2 --shots 1 5",
    "finetune": "--checkpoint run/best --target b --out runs --name new --min-pool 5 --min-held-out 2 --shots 1 5",
    "first_failure": "--target b --images 40 --out runs --name new",
    "nih": "--source nih --out new",
    "padchest": "--source padchest --out new",
    "folder": "--source folder --out new",
    "describe": "",
    "audit": "",
    "show": "",
    "views": "",
    "gap": "",
    "export": "--out new",
    "features": "--out new.parquet",
    "apply": "--out new.csv",
    "fetch": "",
    "tune-packing": "--pretrain a --image-size 32 --batch-size 16 --trials-at-once 1 --seconds 0.1",
}


@dataclass(frozen=True)
class Bad:
    """One bad input: a command of `COMMANDS` with more flags, what is spoilt first, and what the line has to name.

    Of a flag that is there twice the last one counts. `{}` in a flag is the folder itself.
    """

    what: str
    command: str
    flags: str | list[str]
    words: tuple[str, ...]  # the offender, and how to mend it
    spoil: Callable[[Path], object] = lambda folder: None

    @property
    def arguments(self) -> list[str]:
        """The command line after the program's name."""
        more = self.flags.split() if isinstance(self.flags, str) else self.flags
        first = {"nih": ["convert", "nih"], "padchest": ["convert", "padchest"], "folder": ["convert", "folder"]}
        alone = not (ROOT / "sweeps" / f"{self.command}.py").exists()
        start = first.get(self.command, [self.command] if alone else [])
        return [*start, *COMMANDS[self.command].split(), *more]


def table(*rows: Bad) -> pytest.MarkDecorator:
    """Parametrise a test by rows, each named after what is bad."""
    return pytest.mark.parametrize("bad", rows, ids=lambda bad: f"{bad.command}: {bad.what}")


def main_of(command: str) -> Callable[[], None]:
    """The `main` of a script in sweeps/, or of `scarce`."""
    path = ROOT / "sweeps" / f"{command}.py"
    if not path.exists():
        return cli.main
    spec = importlib.util.spec_from_file_location(f"sweeps_{command}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[[], None] = module.main
    return main


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder with its content; None for what is no file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file() and not path.is_symlink()
        found[os.fsdecode(os.fsencode(path.relative_to(folder)))] = path.read_bytes() if is_file else None
    return found


def put(path: Path, content: bytes | str) -> None:
    """Write a file in the place of whatever is there: `world` shares its files with other folders."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def run_here(command: str, arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process and folder."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = [f"{command}.py", *arguments]
    code = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            run_or_exit(main_of(command))
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return code, out.getvalue(), err.getvalue()


def check_refusal(code: int, stderr: str, words: tuple[str, ...]) -> None:
    """One line that names the offender and the fix, and exit code 2."""
    assert code == 2, stderr
    assert stderr.startswith("scarce: "), stderr
    assert stderr.endswith("\n"), stderr
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.strip().isprintable(), stderr
    assert len(stderr) < 2000
    missing = [word for word in words if word not in stderr]
    assert not missing, f"{missing} not in: {stderr}"


def refuse(bad: Bad, folder: Path) -> None:
    """The bad input is refused as `check_refusal` has it, and not a byte changes in its folder."""
    bad.spoil(folder)
    before = tree(folder)
    code, _, stderr = run_here(bad.command, [word.replace("{}", str(folder)) for word in bad.arguments])
    check_refusal(code, stderr, bad.words)
    after = tree(folder)
    assert sorted(after) == sorted(before)
    assert after == before


def linked_copy(source: Path, target: Path) -> Path:
    """A copy that shares its files' content with `source`: quick, and whoever changes a file has to replace it."""
    shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
    return target
