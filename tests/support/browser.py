"""Headless Chromium, driven over the DevTools protocol's pipe: descriptors 3 and 4, JSON ended by a NUL."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any


class Browser:
    """One page; every error and warning it puts on the console or throws is kept in ``complaints``."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        program = (
            shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        )
        assert program is not None, "no Chromium: apt install chromium"
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()

        self._process = subprocess.Popen(
            # A shell puts the child's ends in place: code of ours between fork and exec could meet another thread's lock.
            ["bash", "-c", f'exec 3<&{theirs_in} 4>&{theirs_out} "$0" "$@"', program, "--headless=new",
             "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
             f"--user-data-dir={profile}", f"--window-size={width},{height}", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._numbers, self._buffer = itertools.count(1), b""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self, timeout: float = 60) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "Chromium has gone"
            self._buffer += chunk
        raw, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(raw)
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(str(params["entry"]))
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
        return message

    def open(self, path: Path) -> float:
        """Load a file and wait until the page says it is ready; seconds that took."""
        start = time.monotonic()
        self.call("Page.navigate", url=path.as_uri())
        while time.monotonic() - start < 60:
            if self.run(
                "(document.documentElement?.dataset.ready ?? document.documentElement?.dataset.failed) || ''"
            ):
                return time.monotonic() - start
            time.sleep(0.05)
        raise AssertionError(f"the page never became ready: {self.complaints}")

    def run(self, script: str) -> Any:
        """The value of *script* in the page; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 20) -> None:
        """Wait until *script* is true in the page."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"never became true: {script}"
            time.sleep(0.03)

    def click(self, x: float, y: float, to: tuple[float, float] | None = None, clicks: int = 1) -> None:
        """Press at (x, y) in the window, move to *to* if given, let go: as a hand does."""
        end = to or (x, y)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for _ in range(clicks):
            self.call(
                "Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=clicks
            )
            if to:
                self.call(
                    "Input.dispatchMouseEvent",
                    type="mouseMoved",
                    x=end[0],
                    y=end[1],
                    button="left",
                    buttons=1,
                )
            self.call(
                "Input.dispatchMouseEvent",
                type="mouseReleased",
                x=end[0],
                y=end[1],
                button="left",
                clickCount=clicks,
            )

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot as PNG, of the *whole* page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(OSError):
            os.write(self._out, b'{"id":999999,"method":"Browser.close"}\0')
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
