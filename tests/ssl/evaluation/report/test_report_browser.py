"""The page in a browser: it draws its figures without an error or a request, and sorting, filters, map and colors work."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from time_limit import at_most

from wildfern.ssl.evaluation import write_report
from wildfern.ssl.evaluation.report.image_details import ImageDetails, Predicted, write_details

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--no-first-run"]
SECONDS = 60


class Browser:
    """Headless Chromium, driven by the DevTools protocol over two pipes: JSON messages that end with a zero byte."""

    def __init__(self, profile: str) -> None:
        theirs_in, self.to = os.pipe()
        self.of, theirs_out = os.pipe()
        # Away from 3 and 4, which the browser reads and writes.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 50) for end in (theirs_in, theirs_out)]
        os.close(theirs_in)
        os.close(theirs_out)

        def connect() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self.process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
            preexec_fn=connect,
            close_fds=False,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        for end in ends:
            os.close(end)
        self.waiting, self.count, self.session = b"", 0, None
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command; events that come before it are kept."""
        self.count += 1
        message: dict[str, Any] = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == message["id"]:
                assert "error" not in found, found
                return found["result"]
            self.events.append(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.waiting:
            part = os.read(self.of, 2**20)
            assert part, "the browser has ended"
            self.waiting += part
        one, _, self.waiting = self.waiting.partition(b"\0")
        return json.loads(one)

    def open(self, page: Path, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Open a page and wait until it is loaded and its two next frames are drawn."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[theme])
        self.load(page)

    def load(self, page: Path) -> None:
        """Load a page, as `open` does."""
        self.send("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def resize(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.run("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(() => drawn(0))))")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        how = {"returnByValue": True, "awaitPromise": True, "allowUnsafeEvalBlockedByCSP": False}
        found = self.send("Runtime.evaluate", expression=expression, **how)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def faults(self) -> list[str]:
        """Errors of the page so far: exceptions, and what the console shows as errors, such as refused requests."""
        found = []
        for event in self.events:
            method, said = event.get("method"), event.get("params", {})
            if (
                method == "Runtime.exceptionThrown"
                or (method == "Log.entryAdded" and said["entry"]["level"] == "error")
                or (method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"))
            ):
                found.append(json.dumps(said)[:500])
        return found

    def requests(self) -> list[str]:
        sent = (event for event in self.events if event.get("method") == "Network.requestWillBeSent")
        urls = [event["params"]["request"]["url"] for event in sent]
        return [url[:80] for url in urls if not url.startswith("data:")]

    def close(self) -> None:
        os.close(self.to)
        os.close(self.of)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


HOSTILE = "<img src=x onerror=alert(1)>"
ROW = {"protocol": "knn", "metric": "accuracy", "n": 9, "low": None, "high": None, "detail": ""}


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page with a chart, seven rows of scores and a map."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the path")
    run = tmp_path_factory.mktemp("browser") / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(f"name: {json.dumps(HOSTILE)}\n")
    lines = [{"step": step, "loss": 1 / (1 + step), HOSTILE: step, "learning_rate": 0.1} for step in range(50)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = []
    for number in range(7):
        dataset = {"dataset": f"data {number}"}
        rows += [ROW | dataset | {"backbone": "random", "value": 0.1}]
        rows += [ROW | dataset | {"backbone": "pretrained", "value": (0.3 + 0.41 * number) % 1}]
    (run / "evaluation.json").write_text(json.dumps({"baseline": "random", "protocols": {}, "rows": rows}))
    labels = np.arange(200) % 2
    features = np.c_[labels * 4.0, np.sin(np.arange(200))].astype(np.float32)
    write_details(
        run,
        ImageDetails(
            "data 0",
            labels,
            np.arange(200),
            ("ant", HOSTILE),
            {("knn", "pretrained"): Predicted(np.zeros((200, 1), np.int64))},
            map_images=np.arange(200),
            map_features={"pretrained": features, "random": -features},
        ),
    )
    return write_report([run], run / "report.html")


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory) -> Iterator[Browser]:
    found = Browser(str(tmp_path_factory.mktemp("profile")))
    with at_most(SECONDS):
        found.open(page)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    with at_most(SECONDS):
        yield


def shown(browser: Browser) -> list[str]:
    """The data sets of the rows that are shown, in their order."""
    rows = "[...document.querySelectorAll('.scores > tbody')].filter(body => !body.hidden).map(body => body.dataset.dataset)"
    return browser.run(rows)


def drawn(browser: Browser, canvas: str) -> int:
    """How many pixels of a canvas are not transparent; what was drawn by WebGL is read through a copy."""
    return browser.run(
        f"(() => {{ const found = document.querySelector('{canvas}'); const copy = document.createElement('canvas');"
        "copy.width = found.width; copy.height = found.height; const flat = copy.getContext('2d');"
        "flat.drawImage(found, 0, 0); const data = flat.getImageData(0, 0, copy.width, copy.height).data;"
        "return data.filter((value, i) => i % 4 === 3 && value > 0).length; })()"
    )


def click(browser: Browser, expression: str) -> None:
    browser.run(f"{expression}.scrollIntoView({{block: 'center'}})")
    x, y = browser.run(
        f"(() => {{ const box = {expression}.getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def test_figures_are_drawn_without_errors_or_requests(browser, page):
    assert browser.run("document.querySelectorAll('figure.chart .uplot').length") == 3
    assert drawn(browser, "figure.chart canvas") > 500
    assert drawn(browser, "figure.map canvas") > 500
    assert browser.run("document.querySelector('.stage').dataset.kind") == "webgl"
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert browser.faults() == []
    assert browser.requests() == [page.as_uri()[:80]]


def test_scripts_of_others_do_not_run(browser):
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert browser.run("window.ran") is None
    with pytest.raises(AssertionError, match="EvalError"):
        browser.run("new Function('return 1')()")
    browser.events.clear()  # of the refusals


def test_rows_are_sorted_by_mouse_and_keyboard(browser):
    first = [f"data {number}" for number in range(7)]
    values = {f"data {number}": (0.3 + 0.41 * number) % 1 for number in range(7)}
    value = "[...document.querySelectorAll('.scores > thead button')].find(one => one.textContent === 'value')"
    assert shown(browser) == first
    click(browser, value)
    assert shown(browser) == sorted(first, key=values.get, reverse=True)
    assert browser.run(f"{value}.parentElement.ariaSort") == "descending"
    browser.press("Enter", 13)  # the button has the focus
    assert shown(browser) == sorted(first, key=values.get)
    browser.press("Enter", 13)
    assert shown(browser) == first


def test_rows_are_filtered(browser):
    browser.run("document.querySelector('.filters-bar input').focus()")
    browser.send("Input.insertText", text="KNN 71.0")
    assert shown(browser) == ["data 1"]
    assert browser.run("document.querySelector('.filters-bar output').textContent") == "1 of 7 rows"
    browser.run(
        "(() => { const text = document.querySelector('.filters-bar input'); text.value = '';"
        "text.dispatchEvent(new Event('input')); const select = document.querySelector('.filters-bar select');"
        "select.value = 'data 5'; select.dispatchEvent(new Event('change')); })()"
    )
    assert shown(browser) == ["data 5"]
    browser.run(
        "(() => { const select = document.querySelector('.filters-bar select');"
        "select.value = ''; select.dispatchEvent(new Event('change')); })()"
    )
    assert len(shown(browser)) == 7


def test_a_chart_tells_the_values_under_the_pointer_and_by_keys(browser):
    output = "document.querySelector('figure.chart output').textContent.trim()"
    assert browser.run(output) == "0.02"  # the last one
    browser.run("document.querySelector('figure.chart .plot').focus()")
    browser.press("Home", 36)
    browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
    assert browser.run(output) == "step 0 1"
    browser.press("ArrowRight", 39)
    browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
    assert browser.run(output) == "step 1 0.5"


def test_the_map_tells_about_the_image_under_the_pointer_and_highlights_classes(browser):
    canvas = "document.querySelector('figure.map canvas')"
    browser.run(f"{canvas}.scrollIntoView({{block: 'center'}})")
    # The points of a class are on a line; those of the first one at the left.
    place = browser.run(
        f"(() => {{ const box = {canvas}.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; }})()"
    )
    before = drawn(browser, "figure.map canvas")
    tips = set()
    for x in np.linspace(place[0] + 4, place[0] + place[2] - 4, 60):
        browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=float(x), y=place[1] + place[3] / 2)
        tips.add(
            browser.run("document.querySelector('.tip').hidden ? '' : document.querySelector('.tip b').textContent")
        )
    assert tips == {"", "ant", HOSTILE}
    click(browser, "document.querySelector('.categories button')")
    assert browser.run("document.querySelector('.categories button').ariaPressed") == "true"
    assert drawn(browser, "figure.map canvas") > 0
    click(browser, "document.querySelector('.categories button')")
    assert drawn(browser, "figure.map canvas") == before
    browser.run(f"{canvas}.focus()")
    for _ in range(40):
        browser.press("ArrowLeft", 37)
    assert drawn(browser, "figure.map canvas") == 0
    browser.press("0", 48)
    assert drawn(browser, "figure.map canvas") == before


def test_colors_switch(browser):
    color = "getComputedStyle(document.body).backgroundColor"
    before = browser.run(color)
    click(browser, "document.querySelector('button.theme')")
    assert browser.run("document.documentElement.dataset.theme") == "dark"
    assert browser.run(color) != before
    click(browser, "document.querySelector('button.theme')")
    assert browser.run(color) == before
    assert browser.faults() == []


def test_values_are_in_view_on_a_phone(browser):
    browser.resize(390, 844)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    right = "Math.max(...[...document.querySelectorAll('.scores td.value')].map(cell => cell.getBoundingClientRect().right))"
    assert browser.run(right) <= 390
    browser.resize(1280, 800)


def test_without_webgl_the_map_is_drawn_all_the_same(browser, page):
    browser.send(
        "Page.addScriptToEvaluateOnNewDocument",
        source="const get = HTMLCanvasElement.prototype.getContext; HTMLCanvasElement.prototype.getContext = "
        "function (kind, ...rest) { return kind === 'webgl' ? null : get.call(this, kind, ...rest); };",
    )
    browser.events.clear()
    browser.load(page)
    assert browser.run("document.querySelector('.stage').dataset.kind") == "2d"
    assert drawn(browser, "figure.map canvas") > 500
    assert browser.faults() == []
