"""A headless Chromium for tests of pages."""

import os
import shutil

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")

CONTRAST = """
const luminance = (c) => c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const background = (node) => {
  for (; node; node = node.parentElement) {
    const c = parse(getComputedStyle(node).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
  }
  return [255, 255, 255];
};
const found = [];
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  if (!own || !node.getClientRects().length || node.disabled || ["SCRIPT", "STYLE"].includes(node.tagName)) continue;
  const [a, b] = [luminance(parse(getComputedStyle(node).color).slice(0, 3)), luminance(background(node))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) found.push([node.tagName, node.textContent.slice(0, 30), ratio]);
}
return found;
"""
OVERLAPS = """
const watched = "section, figure, button, select, input, #layers li, h1, h2, #bars tr, .controls > *";
const boxes = [...document.querySelectorAll(watched)]
  .filter((node) => node.getClientRects().length).map((node) => [node, node.getBoundingClientRect()]);
const found = [];
for (const [a, p] of boxes) for (const [b, q] of boxes) {
  if (a === b || a.contains(b) || b.contains(a)) continue;
  const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
  const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
  if (across > 1 && down > 1) found.push([a.outerHTML.slice(0, 60), b.outerHTML.slice(0, 60)]);
}
for (const [node, box] of boxes)
  if (box.left < -1 || box.right > innerWidth + 1) found.push([node.outerHTML.slice(0, 60), "outside"]);
return found;
"""


class Browser:
    """A page in Chromium. `run` evaluates JavaScript in it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, width=1440, dark=False):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get_log("browser")
        self.driver.get(path.resolve().as_uri())
        self.settle()

    def run(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def settle(self):
        """Wait until the page has shown its last change."""
        done = "requestAnimationFrame(() => requestAnimationFrame(() => arguments[arguments.length - 1]()))"
        self.driver.execute_async_script(done)

    def pointer(self, kind, x, y, pointer="mouse"):
        """Send a real event of a mouse, pen or finger at this place of the window."""
        if pointer == "touch":
            points = [] if kind == "up" else [{"x": x, "y": y}]
            name = {"down": "touchStart", "move": "touchMove", "up": "touchEnd"}[kind]
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": name, "touchPoints": points})
            return
        name = {"down": "mousePressed", "move": "mouseMoved", "up": "mouseReleased"}[kind]
        event = {"type": name, "x": x, "y": y, "button": "left", "buttons": int(kind != "up"), "pointerType": pointer}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event | {"clickCount": 1})

    def key(self, key, code=None, text=""):
        for kind in ("keyDown", "keyUp"):
            event = {"type": kind, "key": key, "code": code or key}
            self.driver.execute_cdp_cmd(
                "Input.dispatchKeyEvent", event | ({"text": text} if text and kind == "keyDown" else {})
            )

    def errors(self):
        """Messages of the console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def low_contrast(self):
        return self.run(CONTRAST)

    def overlaps(self):
        return self.run(OVERLAPS)

    def is_wider_than_the_window(self):
        return self.run("return document.documentElement.scrollWidth > innerWidth")


def start():
    """Start Chromium. Skip the test if it is missing, unless XPNET_TEST_BROWSER is set, as in CI."""
    required = bool(os.environ.get("XPNET_TEST_BROWSER"))
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError as error:
        if required:
            raise
        pytest.skip(f"needs selenium: {error}")
    if CHROMIUM is None or DRIVER is None:
        reason = "needs chromium and chromedriver (Debian: apt install chromium chromium-driver)"
        if required:
            raise RuntimeError(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Browser(webdriver.Chrome(options=options, service=Service(DRIVER)))
