"""The `scarce` command as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from hospital_folders import write_nih


def scarce(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from scarce.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_convert_and_describe(tmp_path: Path) -> None:
    source = write_nih(tmp_path / "source", images=4)
    converted = scarce("convert", "nih", "--source", source, "--out", tmp_path / "out", "--size", "32")
    assert converted.returncode == 0, converted.stderr
    assert "Dataset" not in converted.stderr  # Ray Data's plans
    assert converted.stdout.splitlines()[-1].endswith("out: 4 images of 2 patients, 0 rejected")
    described = scarce("describe", tmp_path / "out")
    assert described.returncode == 0, described.stderr
    assert described.stdout.startswith("nih: 4 images of 2 patients, 32 x 32 pixels")


@pytest.mark.parametrize("hospital", ["nih", "padchest", "folder"])
def test_a_wrong_folder_is_told_in_one_line(tmp_path: Path, hospital: str) -> None:
    ended = scarce("convert", hospital, "--source", tmp_path, "--out", tmp_path / "out")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("scarce: ")
    assert len(ended.stderr.splitlines()) == 1
    assert "expected" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_no_dataset_to_describe(tmp_path: Path) -> None:
    ended = scarce("describe", tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"scarce: no converted dataset in {tmp_path}")


@pytest.mark.parametrize(
    "arguments", [[], ["convert"], ["convert", "mars"], ["convert", "nih"], ["describe", "--nonsense", "x"], ["audit"]]
)
def test_wrong_arguments_exit_2(arguments: list[str]) -> None:
    assert scarce(*arguments).returncode == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from scarce.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print([name for name in ('ray', 'torch', 'pandas', 'pyarrow', 'sklearn') if name in sys.modules])"
    )
    for arguments in (["--help"], ["convert", "folder", "--help"], ["audit", "--help"]):
        ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert ended.stdout.splitlines()[-1] == "[]"
