"""Known vulnerabilities of the pinned packages, as a report: prints it and ends with 0, whatever came of it.

A version is found to be vulnerable on any day, so that the same commit would pass on Monday and fail on Tuesday.
"""

import json
import subprocess
import sys
from pathlib import Path

SECONDS = 60
PINS = Path(__file__).parents[1] / "requirements.lock"
OFFLINE = "dependency audit not available offline"


def report(answer: str) -> str:
    """What pip-audit's JSON says, in lines."""
    packages = json.loads(answer)["dependencies"]
    known = [package for package in packages if "vulns" in package]
    if not known:
        return OFFLINE
    lines = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in known
        for flaw in package["vulns"]
    ]
    skipped = f", {len(packages) - len(known)} could not be looked up" if len(known) < len(packages) else ""
    return "\n".join(
        [f"dependency audit: {len(lines)} known vulnerabilities of {len(known)} packages{skipped}", *lines]
    )


def audit() -> str:
    """Ask pip-audit about the pins; nothing is installed or resolved for it."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pip_audit", "--requirement", str(PINS), *options],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        return report(ended.stdout)
    except (subprocess.TimeoutExpired, OSError, ValueError, KeyError):  # no answer, or none that is one
        return OFFLINE


if __name__ == "__main__":
    print(audit())
