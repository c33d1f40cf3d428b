"""The page as a real browser lays it out. Skipped where no Chromium is installed."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from pipeline.report import render

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP~*~0.0.0.0",
]
# Runs inside a copy of the page, in a frame of the width under test.
PROBE = """
<script>
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(e =>
    e.getBoundingClientRect().right > innerWidth + 0.5 && !e.closest(".scroll, pre, svg, .hidden"));
  const text = [...document.querySelectorAll("main svg.chart text")];
  parent.postMessage(JSON.stringify({
    width: innerWidth,
    scroll_width: document.documentElement.scrollWidth,
    wide: wide.map(e => e.outerHTML.slice(0, 80)),
    requests: performance.getEntriesByType("resource").map(e => e.name),
    sections: [...document.querySelectorAll("section")]
      .filter(e => e.getBoundingClientRect().height > 60).map(e => e.id),
    smallest_text: Math.min(...text.map(e => e.getBoundingClientRect().height)),
    scripts: document.querySelectorAll("script").length,
  }), "*");
});
</script>
"""
FRAME = """<!DOCTYPE html>
<script>addEventListener("message", e => document.querySelector("output").textContent = e.data)
</script>
<output></output><iframe src="page.html" style="border:0;width:{width}px;height:4000px"></iframe>
"""


@pytest.fixture(scope="session")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a browser to lay the page out: none of {', '.join(BROWSERS)}")
    return found


def laid_out(browser: str, html: str, width: int, folder) -> dict:
    (folder / "page.html").write_text(html.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    flags = [flag.replace("~", " ") for flag in FLAGS]
    done = subprocess.run(
        [
            *(browser, *flags, f"--user-data-dir={folder / 'profile'}"),
            *("--window-size=1300,900", "--virtual-time-budget=4000", "--dump-dom"),
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    [answer] = re.findall(r"<output>(.*?)</output>", done.stdout, flags=re.DOTALL)
    assert answer, done.stderr[-2000:]
    return json.loads(unescape(answer))


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("case", ["usual", "crowded", "bare"])
def test_the_page_fits_its_window(made_up_run, browser, tmp_path, width, case):
    run = {
        "usual": lambda: made_up_run(),
        "crowded": lambda: made_up_run(
            domains=("W" * 64, "<script>1</script>", *(f"domain number {i}" for i in range(10))),
            models=("popularity", "sasrec", "M" * 40, "hydra_single", "hydra_joint", "oracle"),
        ),
        "bare": lambda: made_up_run(("books",), ("popularity",), item_llm=False),
    }[case]()
    page = laid_out(browser, render(**run), width, tmp_path)
    assert page["width"] == width
    assert page["wide"] == []
    assert page["scroll_width"] <= width
    assert page["requests"] == []
    assert page["scripts"] == 1, "the probe alone"
    assert len(page["sections"]) == 8
    if case != "bare":
        assert page["smallest_text"] >= 9, "text of charts must stay readable"
