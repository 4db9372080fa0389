"""Nothing that is read is run: no pickles of others, no shell, no code from text."""

import ast
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from scarce.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("scarce", "sweeps", "benchmarks") for path in (ROOT / folder).rglob("*.py"))

FORBIDDEN = {
    *("eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads"),
    *("joblib.load", "pd.read_pickle", "pandas.read_pickle", "shelve.open", "marshal.loads", "yaml.load"),
    *("yaml.unsafe_load", "torch.hub.load", "runpy.run_path"),
}


def dangers(source: str) -> list[str]:
    """The calls in some code that run what they read, or give text to a shell; each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {word.arg: word.value for word in node.keywords}
        given = {key: value.value for key, value in options.items() if isinstance(value, ast.Constant)}
        wrong = (
            name in FORBIDDEN
            or (name.endswith("torch.load") and given.get("weights_only") is not True)
            or (name.rpartition(".")[2] == "load" and given.get("allow_pickle", False) is not False)
            or ("shell" in options and given.get("shell") is not False)
        )
        if wrong:
            found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_ours_runs_what_it_reads(path: Path) -> None:
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=chosen)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(command, shell=True)",
        "subprocess.run(command, shell=chosen)",
        "os.system(command)",
        "pickle.loads(content)",
        "joblib.load(path)",
        "pd.read_pickle(path)",
    ],
)
def test_what_is_looked_for_is_found(code: str) -> None:
    assert len(dangers(code)) == 1


@pytest.mark.parametrize("code", ["torch.load(path, weights_only=True)", "model.eval()", "subprocess.run([x])"])
def test_what_is_safe_is_let_pass(code: str) -> None:
    assert dangers(code) == []


class Bomb:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("protocol", [None, 0, 2, 5])
def test_a_checkpoint_that_is_a_program_is_not_run(
    protocol: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path, 1, {"history": [], "method": {"x": torch.zeros(2)}}, best=False)
    assert load_checkpoint(tmp_path / "step-00000001.pt", torch.device("cpu"))["method"]["x"].tolist() == [0, 0]
    path = tmp_path / "step-00000002.pt"
    if protocol is None:
        torch.save({"history": [], "method": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"history": [], "method": Bomb()}, protocol))
    with pytest.raises(Exception, match=r"Weights only|damaged|weights_only"):
        load_checkpoint(path, torch.device("cpu"))
    assert not (tmp_path / "pwned").exists()
    pickle.loads(pickle.dumps(Bomb()))  # it would have been
    assert (tmp_path / "pwned").exists()
