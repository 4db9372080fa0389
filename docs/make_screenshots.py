"""Makes the screenshots of the docs from a finished run: its report, its TensorBoard, and Ray's dashboard.

    python docs/make_screenshots.py runs/ssl_aug-phantom-a-phantom-b

Needs Chromium and the package playwright, which drives it. Nothing outside this machine is asked for anything.
"""

import io
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, Route, sync_playwright

HERE = Path(__file__).parent
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
DESKTOP, LOW, PHONE = (1280, 1100), (1280, 640), (400, 860)
TAGS = "^(loss|val_auc|effective_rank|embedding_std)$"
SETTLE_MS = 8000  # until TensorBoard and the dashboard have drawn what they fetched


def main(run: Path) -> None:
    """Write report.png, report_phone.png, tensorboard.png and ray_dashboard.png beside this file."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        report = (run / "report.html").absolute().as_uri()
        shoot(browser, report, "report.png", DESKTOP, settle_ms=0)
        shoot(browser, report, "report_phone.png", PHONE, settle_ms=0)
        with tensorboard(run / "tensorboard") as address:
            shoot(browser, f"{address}?tagFilter={TAGS}#timeseries", "tensorboard.png", DESKTOP)
        with running_sweep() as (address, token):
            shoot(browser, f"{address}/#/actors", "ray_dashboard.png", LOW, token=token)
        browser.close()


def shoot(
    browser: Browser, address: str, name: str, size: tuple[int, int], settle_ms: int = SETTLE_MS, token: str = ""
) -> None:
    """Save what a window of this size shows, in 128 colours."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, extra_http_headers=headers)
    page.route("**/*", stay_here)
    page.goto(address, wait_until="load")
    page.wait_for_timeout(settle_ms)
    save(page, HERE / name)
    page.close()


def save(page: Page, path: Path) -> None:
    """A screenshot as a small PNG."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").quantize(128).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def stay_here(route: Route) -> None:
    """Let through what is on this machine, nothing else: both pages ask for fonts elsewhere."""
    here = re.match(r"(file|data|blob):|https?://(127\.0\.0\.1|localhost)[:/]", route.request.url)
    route.continue_() if here else route.abort()


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """TensorBoard on a free port of loopback; its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stderr.readline, "") if process.stderr else iter(())
            yield next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        finally:
            process.terminate()


@contextmanager
def running_sweep() -> Iterator[tuple[str, str]]:
    """A sweep whose trials have begun to report; the address of its dashboard, and a token made for it alone."""
    token = secrets.token_hex(32)
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(HERE.parent / "sweeps" / "ssl_aug.py"), "--out", out, "--no-audit"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
            try:
                lines = iter(process.stdout.readline, "") if process.stdout else iter(())
                address = next(line.split()[-1] for line in lines if line.startswith("Ray dashboard"))
                next(line for line in lines if line.startswith("trial "))
                yield address, token
            finally:
                process.send_signal(signal.SIGINT)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("expected the folder of a finished run, as in: python docs/make_screenshots.py runs/NAME")
    main(Path(sys.argv[1]))
