import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from phantom_hospitals import SCRIPT

from scarce.command_line import parse
from scarce.config import METHODS_PRESETS, PRESETS, DataConfig, MethodsConfig, RunConfig, run_folder
from scarce.errors import UserError


def test_a_run_is_named_after_its_hospitals_unless_it_has_a_name(tmp_path: Path):
    data = DataConfig("data/nih", "data/padchest/")
    unnamed, named = (RunConfig(name=name, out=str(tmp_path)) for name in ("", "first"))
    assert run_folder(data, unnamed, "ssl_aug") == tmp_path / "ssl_aug-nih-padchest"
    assert run_folder(data, named, "ssl_aug") == tmp_path / "first"
    assert run_folder(DataConfig(), RunConfig(), "methods") == Path.cwd() / "runs" / "methods-phantom-a-phantom-b"


def test_a_run_in_a_bucket_is_named_the_same_way():
    data = DataConfig("s3://bucket/nih?region=eu-west-1", "data/padchest")
    run = RunConfig(out="s3://bucket/runs?region=eu-west-1")
    expected = "s3://bucket/runs/ssl_aug-nih-padchest?region=eu-west-1"
    assert str(run_folder(data, run, "ssl_aug")) == expected
    with pytest.raises(UserError, match="--name"):
        run_folder(data, replace(run, name="../elsewhere"), "ssl_aug")


def test_flags_override_a_preset_wherever_it_stands():
    l4 = PRESETS["l4"].pretrain
    for arguments in (["--preset", "l4", "--batch-size", "64"], ["--batch-size", "64", "--preset=l4"]):
        config = parse(arguments, PRESETS, "")
        assert (config.pretrain.batch_size, config.pretrain.backbone) == (64, l4.backbone)
    assert parse([], METHODS_PRESETS, "") == MethodsConfig()
    assert list(parse(["--objective", "auc,shortcut"], PRESETS, "").search.objectives) == ["val_auc", "val_shortcut"]
    assert list(parse([], PRESETS, "").search.objectives) == ["val_auc"]
    with pytest.raises(UserError, match="expected one of cpu, l4"):
        parse(["--preset", "h100"], PRESETS, "")


@pytest.mark.parametrize("values", [{"seeds": 1}, {"trials": 0}, {"device_seconds": 0.0}])
def test_a_contest_without_an_interval_or_a_budget_is_refused(values):
    with pytest.raises(UserError, match="--"):
        MethodsConfig(**values)


@pytest.mark.parametrize("script", sorted(SCRIPT.parent.glob("*.py")), ids=lambda path: path.stem)
def test_help_is_quick_to_import(script: Path):
    """`--help` imports neither torch nor Ray, which is what makes it answer at once."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{script.name!r}, '--help']\n"
        f"try: runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print([name for name in ('ray', 'torch', 'pandas', 'pyarrow', 'sklearn') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
