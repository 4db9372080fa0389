from pathlib import Path

from scarce.config import DataConfig, RunConfig, SweepConfig, run_folder


def test_a_run_is_named_after_its_hospitals_unless_it_has_a_name(tmp_path: Path):
    data = DataConfig("data/nih", "data/padchest/")
    unnamed, named = (SweepConfig(data=data, run=RunConfig(name=name, out=str(tmp_path))) for name in ("", "first"))
    assert run_folder(unnamed, "ssl_aug") == tmp_path / "ssl_aug-nih-padchest"
    assert run_folder(named, "ssl_aug") == tmp_path / "first"
    assert run_folder(SweepConfig(), "ssl_aug") == Path.cwd() / "runs" / "ssl_aug-phantom-a-phantom-b"
