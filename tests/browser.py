"""A headless Chromium for tests of pages; selenium drives Debian's chromium and chromedriver."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

# No sandbox for root; and no requests of the browser's own.
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def is_here() -> bool:
    """Whether there is a browser to test with."""
    return all(map(shutil.which, ("chromium", "chromedriver")))


class Browser:
    """One window.

    Attributes:
      driver: selenium's.
    """

    def __init__(self, driver: webdriver.Chrome):
        self.driver = driver

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Sets the size of the window, in CSS pixels, and the reader's theme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, path: Path) -> float:
        """Opens a page of `lmjax.pages`; returns seconds until its first curve is drawn."""
        self.driver.get(path.as_uri())
        # Since the beginning of the navigation, by the page's own clock.
        self.until("return document.querySelector('.plot .main-svg') !== null")
        return self.run("return performance.now()") / 1000

    def run(self, script: str, *arguments):
        """What JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, seconds: float = 20) -> None:
        """Waits until JavaScript returns something true."""
        WebDriverWait(self.driver, seconds, poll_frequency=0.02).until(lambda _: self.run(script))

    def complaints(self) -> list[str]:
        """What stood in the console since this was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        if whole:
            width, height = self.run("return [innerWidth, document.documentElement.scrollHeight]")
            dark = self.run("return matchMedia('(prefers-color-scheme: dark)').matches")
            self.look(width=width, height=min(height, 12_000), dark=dark)
            self.until(
                "return [...document.querySelectorAll('.plot')].every(x => x.childElementCount)"
            )
        self.driver.save_screenshot(str(path))


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser with an empty profile."""
    options = Options()
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
