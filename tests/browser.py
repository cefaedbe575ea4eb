"""A real Chromium for tests of pages: what it shows, says and asks for."""

import json
import shutil
import time
from pathlib import Path

import axe_core_python
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
SCHEMES = ("light", "dark")
PHONE, DESKTOP = 390, 1200

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver in the PATH"
)


def start_chromium(folder):
    """A browser with a profile in `folder`. Nothing here is allowed to fetch anything."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder}",
    ):  # fmt: skip
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))


LAST = "the last message"


class Visit:
    """A page that is open in the browser, and what the browser had to say."""

    def __init__(self, driver, address, width=DESKTOP, scheme="light", motion="no-preference"):
        self.driver = driver
        driver.get("about:blank")
        driver.get_log("browser"), driver.get_log("performance")
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        driver.get(address)

    def __call__(self, script, *arguments):
        """What a script in the page returns."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, script, *arguments):
        """What a script in the page returns once that is something."""
        patience = time.monotonic() + 30
        while not (found := self(script, *arguments)):
            assert time.monotonic() < patience, script
            time.sleep(0.02)
        return found

    def said(self):
        """The messages of the console."""
        # They arrive a little later, in order: so until one of our own is there.
        self(f"console.log({LAST!r})")
        messages, patience = [], time.monotonic() + 30
        while not any(LAST in message for message in messages):
            assert time.monotonic() < patience
            messages += [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in messages if LAST not in message]

    def asked_for(self):
        """The addresses of all requests."""
        events = (
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        )
        sent = (e["params"] for e in events if e["method"] == "Network.requestWillBeSent")
        return [params["request"]["url"] for params in sent]


def violations(visit):
    """The rules of accessibility that are broken, and where."""
    axe = Path(axe_core_python.__file__).parent / "axe.min.js"
    visit(axe.read_text(encoding="utf-8"))
    found = visit.driver.execute_async_script(
        "const done = arguments[0]; axe.run(document).then(done, error => done(String(error)))"
    )
    assert isinstance(found, dict), found
    return {
        rule["id"]: [node["html"][:200] for node in rule["nodes"]] for rule in found["violations"]
    }
