"""The dependency audit reports, whatever pip-audit or the network does, and fails nothing."""

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit_script", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_found_is_told(script: ModuleType) -> None:
    flaw = {"id": "CVE-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
    packages = [
        {"name": "old", "version": "1.0", "vulns": [flaw, {"id": "CVE-2", "fix_versions": []}]},
        {"name": "good", "version": "1.0", "vulns": []},
        {"name": "own", "skip_reason": "not found"},
    ]
    assert script.report(json.dumps({"dependencies": packages, "fixes": []})).splitlines() == [
        "dependency audit: 2 known vulnerabilities of 2 packages, 1 could not be looked up",
        "old 1.0: CVE-1, mended in 2.0",
        "old 1.0: CVE-2, mended in none",
    ]


@pytest.mark.parametrize(
    "ending",
    [
        subprocess.TimeoutExpired("pip-audit", 60),
        FileNotFoundError("pip-audit"),
        "",
        "ServiceError",
        "{}",
        json.dumps({"dependencies": [{"name": "own", "skip_reason": "not found"}], "fixes": []}),
    ],
    ids=str,
)
def test_no_answer_is_no_failure(script: ModuleType, ending: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, timeout: float, **__: object) -> Any:
        assert timeout <= 60
        if isinstance(ending, Exception):
            raise ending
        return subprocess.CompletedProcess((), 1, ending, "")

    monkeypatch.setattr(script.subprocess, "run", run)
    assert script.audit() == "dependency audit not available offline"


def test_ci_runs_it_last(script: ModuleType) -> None:
    commands = (ROOT / ".ci" / "run").read_text().splitlines()
    assert commands[-1].startswith("make audit || true")
    assert ".ci/audit.py" in (ROOT / "Makefile").read_text()
