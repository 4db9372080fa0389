"""A few refusals as a user meets them: as processes, without permission, and while Ray is asked for."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from refusals import COMMANDS, ROOT, Bad, check_refusal, run_here, table, tree

from scarce.errors import UserError, run_or_exit


@table(
    Bad("no dataset", "describe", "nowhere", ("no converted dataset in", "scarce convert")),
    Bad("a misspelt flag", "nih", "--sise 64", ("--sise", "--size")),
    Bad("a name with an escape sequence", "padchest", ["--source", "\x1b]0;x\x07 a\nb"], (r"\x1b]0;x\x07 a b",)),
    Bad("a name that is no text", "folder", ["--source", os.fsdecode(b"\xff")], (r"\udcff", "--source")),
    Bad("no trials", "ssl_aug", "--trials 0", ("--trials is 0", "at least 1")),
    Bad("a path for a name", "first_failure", "--name ../x", ("--name '../x'", "name of one folder")),
)  # fmt: skip
def test_a_process(bad: Bad, world: Path) -> None:
    path = ROOT / "sweeps" / f"{bad.command}.py"
    start = [str(path)] if path.exists() else ["-c", "from scarce.cli import main; main()"]
    before = tree(world)
    ended = subprocess.run([sys.executable, *start, *bad.arguments], capture_output=True, text=True, timeout=120)
    check_refusal(ended.returncode, ended.stderr, bad.words)
    assert ended.stdout == ""
    assert tree(world) == before


@pytest.fixture
def nobody(good: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of good input; as root, the test goes on as a user without rights."""
    folder = Path(tempfile.mkdtemp(prefix="scarce-nobody-"))
    shutil.copytree(good, folder, dirs_exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    monkeypatch.chdir(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("command", "flags", "locked", "words"),
    [
        ("nih", "", "nih/Data_Entry_2017_v2020.csv", ("can't be read as a CSV file", "Permission denied")),
        ("nih", "", "nih/images", ("nih/images", "Permission denied", "can be read")),
        ("folder", "--out locked/new", "", ("--out", "locked can't be written to", "another folder")),
        ("describe", "b", "b", ("b/dataset.json", "Permission denied", "can be read")),
        ("describe", "b", "b/shard-00000.parquet", ("b/shard-00000.parquet", "conversion again")),
        ("first_failure", "--out locked", "", ("locked can't be written to", "another --out")),
        ("audit", "run", "run/config.json", ("run/config.json", "Permission denied", "can be read")),
    ],
)
def test_no_permission(command: str, flags: str, locked: str, words: tuple[str, ...], nobody: Path) -> None:
    bad = Bad("", command, flags, words)
    (nobody / "locked").mkdir(mode=0o555)
    before = tree(nobody)
    assert run_here(command, ["--nonsense"])[0] == 2  # whatever it imports is imported as root
    warm = {
        "describe": "a",
        "nih": "--size 8",
        "folder": "--size 8",
        "audit": "nowhere",
        "first_failure": "--target nowhere",
    }
    run_here(command, Bad("", command, warm[command], ()).arguments)
    if locked:
        (nobody / locked).chmod(0)
    is_root = os.getuid() == 0
    try:
        if is_root:
            os.setresuid(65534, 65534, 0)
        code, _, stderr = run_here(command, bad.arguments)
    finally:
        if is_root:
            os.setresuid(0, 0, 0)
        if locked:
            (nobody / locked).chmod(0o755)
    check_refusal(code, stderr, words)
    assert tree(nobody) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_a_place_that_the_system_refuses_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise OSError(number, os.strerror(number), "/there/a\nb")

    with pytest.raises(SystemExit) as ended:
        run_or_exit(command)
    check_refusal(int(ended.value.code or 0), capsys.readouterr().err, ("/there/a b", os.strerror(number), "place"))


def test_other_errors_are_not_hidden() -> None:
    for error in (OSError(errno.EIO, "broken disk", "x"), OSError(errno.ENOSPC, "full"), ValueError("a mistake here")):

        def command(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            run_or_exit(command)


def test_the_good_input_is_good(world: Path) -> None:
    """Else a row could be refused for another reason than its own."""
    assert run_here("describe", ["describe", "b"])[0] == 0
    for command in ("nih", "padchest", "folder", "ssl_aug", "methods"):
        with pytest.raises(pytest.fail.Exception, match="Ray was started"):
            run_here(command, Bad("", command, "", ()).arguments)
    for command in ("probe", "finetune", "first_failure"):
        flags = [*COMMANDS[command].split(), "--target", "nowhere"]
        assert "no converted dataset" in run_here(command, flags)[2]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_run_of_another_user_is_not_gone_on_with(nobody: Path) -> None:
    from scarce.run_files import _refuse_foreign

    _refuse_foreign(nobody / "run")  # root is not asked
    os.chown(nobody / "run", 12345, 12345)
    try:
        os.setresuid(65534, 65534, 0)
        with pytest.raises(UserError, match=r"run belongs to another user.*only runs of your own"):
            _refuse_foreign(nobody / "run")
    finally:
        os.setresuid(0, 0, 0)
    os.chown(nobody / "run", 0, 0)
    try:
        os.setresuid(65534, 65534, 0)
        _refuse_foreign(nobody / "run")  # root's may be read by everybody
    finally:
        os.setresuid(0, 0, 0)
