"""A headless Chromium, and what a person does in its window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

__all__ = ["REACHABLE", "Page", "in_a_browser", "launched"]

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
)  # fmt: skip
in_a_browser = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()), reason=f"{CHROMIUM} and {DRIVER} (Debian: chromium-driver) are needed"
)
REACHABLE = """
return [...document.querySelectorAll('a[href], button, input, select, textarea, summary, audio, [tabindex="0"]')]
  .filter((one) => !one.disabled && one.checkVisibility({ visibilityProperty: true }))
"""


@contextmanager
def launched(folder: Path) -> Iterator[Any]:
    """A browser that keeps what it keeps in this folder."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """A browser's window, and what a person does in it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def run(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def cdp(self, command: str, **given: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, given)

    def until(self, what: Callable[[], Any], seconds: float = 20) -> Any:
        """Waits for something to be so, and gives it."""
        from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(NoSuchElementException, StaleElementReferenceException):  # it has just been made anew
                if found := what():
                    return found
            time.sleep(0.03)
        raise AssertionError(f"the page did not come so far; it says: {self.find('body').text}")

    def get_ready(self, language: str, width: int, dark: bool) -> None:
        """A visitor who has not been here, with such a screen."""
        agent = self.run("return navigator.userAgent")
        self.cdp("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", features=[scheme])
        self.severe()  # what others left behind is read, and gone

    def open(self, address: str, model: str = "") -> None:
        self.cdp("Storage.clearDataForOrigin", origin=address.rstrip("/"), storageTypes="all")
        self.driver.get(address)
        self.until(lambda: self.find("#title").text not in ("", "…") or self.find("#access").is_displayed())
        if model:
            self.run("const m = arguments[0], s = document.getElementById('model');"
                     "s.value = m; s.dispatchEvent(new Event('change'))", model)  # fmt: skip

    def ask(self) -> str:
        """Sends the form; gives what the status then says."""
        self.find("#send").click()
        self.until(lambda: self.all(".result") or self.all(".complaint:not([hidden])"))
        return str(self.find("#status").text)

    def field(self, name: str) -> Any:
        named = [one for one in self.all(".field") if one.find_element("css selector", ".name").text == name]
        assert len(named) == 1
        return named[0]

    def draw(self, points: list[tuple[float, float]]) -> None:
        """A line on the drawing area, through places given as shares of its sides."""
        from selenium.webdriver.common.action_chains import ActionChains

        canvas = self.find("canvas.pad")
        self.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
        size, actions = canvas.size, ActionChains(self.driver, duration=20)
        places = [(round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"])) for x, y in points]
        actions.move_to_element_with_offset(canvas, *places[0]).click_and_hold()
        for x, y in places[1:]:
            actions.move_to_element_with_offset(canvas, x, y)
        actions.release().perform()

    def drop(self, zone: Any, path: Path) -> None:
        """A file let go over an element, as from a folder's window."""
        self.run("arguments[0].scrollIntoView({block: 'center'})", zone)
        box = self.run(
            "const b = arguments[0].getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]", zone
        )
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.cdp("Input.dispatchDragEvent", type=kind, x=box[0], y=box[1], data=data)

    def chances(self) -> dict[str, str]:
        rows = [one.text.split() for one in self.all(".chances tbody tr")]
        return {row[0]: row[-1] for row in rows}

    def severe(self) -> list[str]:
        """What the browser complained of: anything that the policy forbids would be among it."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]

    def tabbed(self) -> list[Any]:
        """What the tab key goes through from the top of the page, in order."""
        self.run("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex');"
                 "window.seen = [];"
                 "document.addEventListener('focusin', (event) => seen.push(event.target))")  # fmt: skip
        tab = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
        for _ in range(2 * len(self.run(REACHABLE))):
            self.cdp("Input.dispatchKeyEvent", type="keyDown", **tab)
            self.cdp("Input.dispatchKeyEvent", type="keyUp", **tab)
        found: list[Any] = self.run("return [...new Set(seen)]")
        return found

    def unnamed(self) -> list[str]:
        """Controls, pictures and regions in the accessibility tree that have no name."""
        asks = {
            "button", "checkbox", "combobox", "textbox", "spinbutton", "searchbox", "link", "img", "image", "region",
            "table", "log", "Date", "ColorWell", "InputTime", "DisclosureTriangle",
        }  # fmt: skip
        nodes = self.cdp("Accessibility.getFullAXTree")["nodes"]
        bare, plain = list[str](), {"RootWebArea", "main", "heading", "generic"}
        for node in nodes:
            role = node.get("role", {}).get("value", "")
            facts = {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
            wanted = role in asks or (facts.get("focusable") and role not in plain)
            if not node.get("ignored") and wanted and not node.get("name", {}).get("value"):
                bare.append(f"{role} {facts}")
        assert len(nodes) > 50
        return bare + [one.text for one in self.all("[role=group]") if not one.accessible_name]
