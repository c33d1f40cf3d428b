"""A headless Chromium over its debugging pipe: real widths, media, requests and printing.

Messages are JSON ended by a NUL byte; Chromium reads them from file 3 and answers on file 4.

    python tests/pipeline/report/chromium.py runs/demo/report.html docs/images
"""

import base64
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--disable-dev-shm-usage", "--force-color-profile=srgb", "--remote-debugging-pipe"),
)
PICTURES = (  # name, width, height, scheme, where the picture begins
    ("1280", 1280, 2620, "light", "header"),
    ("390", 390, 2330, "dark", "header"),
    ("examples", 1280, 1180, "dark", "#examples"),
    ("neighbours", 1280, 1500, "light", "#item-llm"),
)
# Every element with text of its own, against the first opaque ground below it.
CONTRASTS = r"""
(() => {
  const parse = c => (c.match(/[\d.]+/g) || []).map(Number);
  const light = c => c.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.99) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest(".hidden") || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const ink = parse(e.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(e))].map(v => v + 0.05);
    if (Math.max(a, b) / Math.min(a, b) < 4.5) poor.push(e.outerHTML.slice(0, 90));
  }
  return poor;
})()
"""
PATIENCE = 90.0  # seconds until an answer that does not come is an error


def installed() -> str | None:
    """The first Chromium on the path."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab, and what it asked the network for."""

    def __init__(self, sent: int, received: int) -> None:
        self._sent, self._received, self._buffer, self._last = sent, received, b"", 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call("Network.setCacheDisabled", cacheDisabled=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events that come in between are noted."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._sent, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._last:
            self._note(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def open(
        self, page: Path | str, width: int, *, scheme: str = "light", height: int = 900
    ) -> None:
        """Show a file or an address at a width in CSS pixels, in a light or a dark scheme."""
        self.requests.clear()
        self.complaints.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width < 600 else 1,
            mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media="screen", features=[feature])
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while self.ask("document.readyState") != "complete":
            time.sleep(0.02)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, expression: str) -> Any:
        """The expression's value once it is neither empty nor false."""
        until = time.monotonic() + PATIENCE
        while not (value := self.ask(expression)):
            assert time.monotonic() < until, f"{expression} is empty after {PATIENCE:.0f} s"
            time.sleep(0.05)
        return value

    def picture(self, *, whole: bool = True) -> bytes:
        """A PNG of the page, or of its first screen."""
        done = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(done["data"])

    def printed(self) -> bytes:
        """The page as a PDF, on the paper and with the margins that it asks for."""
        self.call("Emulation.setEmulatedMedia", media="")
        done = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(done["data"])

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            left = until - time.monotonic()
            ready, _, _ = select.select([self._received], [], [], max(left, 0))
            assert ready, f"Chromium gave no answer in {PATIENCE:.0f} s"
            self._buffer += os.read(self._received, 1 << 20)
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(event["params"]))


def main(page: Path, folder: Path) -> None:
    """Pictures of a page: its beginning at two widths, and its examples if it has any."""
    from PIL import Image

    program = installed()
    assert program is not None, f"none of {', '.join(NAMES)} is installed"
    with tempfile.TemporaryDirectory() as profile, running(program, Path(profile)) as browser:
        for name, width, height, scheme, place in PICTURES:
            browser.open(page, width, scheme=scheme, height=height)
            if not browser.ask(f"!!document.querySelector('{place}')"):
                continue
            browser.ask(f"document.querySelector('{place}').scrollIntoView()")
            picture = Image.open(io.BytesIO(browser.picture(whole=False)))
            # A page of text and bars needs no more colours than a palette has.
            small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            small.save(folder / f"{page.stem}-{name}.png", optimize=True)


@contextmanager
def running(program: str, folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, ended with the block."""
    to_child, sent = os.pipe()
    received, from_child = os.pipe()

    def place_pipes() -> None:
        # By way of high numbers: 3 and 4 may be pipe ends themselves.
        read, write = os.dup2(to_child, 203), os.dup2(from_child, 204)
        os.dup2(read, 3)
        os.dup2(write, 4)

    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
        preexec_fn=place_pipes,
        start_new_session=True,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_child)
    os.close(from_child)
    try:
        yield Browser(sent, received)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(sent)
        os.close(received)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]))
