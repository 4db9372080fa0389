import subprocess
import sys
from pathlib import Path

from blocks import DOCS


def test_the_reference_has_what_is_offered_and_what_its_docstrings_say(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from make_reference import modules, write_reference\n"
        "print(*modules())\n"
        "write_reference(Path(sys.argv[2]), [name for name in modules() if name in ('scarce', 'scarce.api')])\n"
    )
    command = [sys.executable, "-W", "error::UserWarning:pdoc", "-c", code, str(DOCS), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert {"scarce", "scarce.methods", "scarce.views", "scarce.commands"} <= set(ended.stdout.split())
    assert "Warn" not in ended.stderr
    page = (tmp_path / "scarce.html").read_text(encoding="utf-8")
    assert "sweeps/ssl_aug.py" in page  # what `sweep` says of itself
    assert 'id="Run.backbone"' in page
