"""Chromium, driven by its own driver."""

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from selenium.common import exceptions as errors
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.kit import PATIENCE, eventually, require_program

_OPTIONS = (
    "--headless=new", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    # Nothing is asked outside, whatever a page wants.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
_SHOW = """
document.querySelector(arguments[0])?.scrollIntoView({block: "center", behavior: "instant"})
"""
_UPDATED = (
    errors.ElementClickInterceptedException, errors.ElementNotInteractableException, errors.NoSuchElementException,
    errors.StaleElementReferenceException,
)  # fmt: skip
"""What cannot be clicked on because the page has just been updated."""
_FAULTS = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"], rules: {"label-content-name-mismatch": {enabled: true}}}).then((found) => done(found.violations.map((one) => ({
    id: one.id, impact: one.impact, where: one.nodes.slice(0, 3).map((node) => node.html.slice(0, 200) + node.failureSummary),
})))).catch((problem) => done([{id: String(problem), impact: "critical", where: []}]));
"""


class Browser:
    """One browser with a profile of its own, whose file ``Local State`` has `state`; of an option that is given twice, the second counts."""

    def __init__(self, *more: str, state: Mapping[str, Any] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="txmux-browser-"))
        profile = self._folder / "profile"
        profile.mkdir()
        if state is not None:
            (profile / "Local State").write_text(json.dumps(state))
        options = ChromeOptions()
        options.binary_location = require_program("chromium")
        for option in (*_OPTIONS, *more):
            options.add_argument(option)
        options.add_argument(f"--user-data-dir={profile}")
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        # When it is killed, because it takes long to end, it leaves its temporary files behind.
        environment = {**os.environ, "TMPDIR": str(self._folder)}
        self._service = Service(require_program("chromedriver"), env=environment)
        # A connection to the driver that is kept may be another one after a test than before.
        self._driver = Chrome(options, self._service, keep_alive=False)
        self._driver.set_page_load_timeout(60)
        self._driver.set_script_timeout(60)

    def end(self) -> None:
        self._driver.quit()
        self._service.process.wait(PATIENCE)  # it may have been killed at last
        eventually(self._is_removed, "the browser's files are gone")

    def _is_removed(self) -> bool:
        # Some of its processes may still write when the driver has ended.
        shutil.rmtree(self._folder, ignore_errors=True)
        return not self._folder.exists()

    def tell(self, command: str, **values: Any) -> Any:
        return self._driver.execute_cdp_cmd(command, values)

    def look_like(self, width: int, scheme: str, height: int = 900) -> None:
        """Be a screen of this many CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.tell("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.tell("Emulation.setEmulatedMedia", features=features)

    def open(self, address: str) -> None:
        self._driver.get(address)

    def reload(self) -> None:
        self._driver.refresh()

    def run(self, script: str, *values: Any) -> Any:
        return self._driver.execute_script(script, *values)

    def find(self, css: str) -> WebElement:
        return self._driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[WebElement]:
        return self._driver.find_elements(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        found = self.run("return document.querySelector(arguments[0])?.textContent ?? ''", css)
        return " ".join(found.split())

    def click(self, css: str) -> None:
        def clicked() -> bool:
            self.run(_SHOW, css)
            try:
                self.find(css).click()
            except _UPDATED:
                return False
            return True

        eventually(clicked, f"{css} can be clicked")

    def answer(self, text: str = "") -> None:
        """Agree to a dialogue, with what it asks for."""

        def answered() -> bool:
            try:
                dialogue = self._driver.switch_to.alert
                if text:
                    dialogue.send_keys(text)
                dialogue.accept()
            except errors.NoAlertPresentException:
                return False
            return True

        eventually(answered, "there is a dialogue")

    def shows(self, css: str, text: str) -> None:
        try:
            eventually(lambda: text in self.text(css), f"{css} shows {text!r}")
        except AssertionError as problem:
            raise AssertionError(f"{problem}, but {self.text(css)!r}") from None

    def cookies(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.tell("Network.getAllCookies")["cookies"]
        return found

    def faults(self) -> list[dict[str, Any]]:
        if not self.run("return !!window.axe"):
            # The package needs Playwright as soon as one of its modules is imported; this imports none.
            axe = files("axe_playwright_python") / "axe.min.js"
            self._driver.execute_script(axe.read_text())
        found: list[dict[str, Any]] = self._driver.execute_async_script(_FAULTS)
        return found

    def picture(self) -> bytes:
        told = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        return base64.b64decode(told["data"])

    def asked(self) -> list[str]:
        """Give the addresses that were asked for since this was asked last."""
        events = [json.loads(one["message"])["message"] for one in self._log("performance")]
        sent = (one["params"] for one in events if one["method"] == "Network.requestWillBeSent")
        return [one["request"]["url"] for one in sent]

    def complaints(self) -> list[str]:
        """Give the warnings and errors of the console since this was asked last."""
        shown, levels = self._log("browser"), {"WARNING", "SEVERE"}
        return [one["message"] for one in shown if one["level"] in levels]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._driver.get_log(kind)
        return found
