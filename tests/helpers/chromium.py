"""A headless Chromium driven over the DevTools protocol; no more of it than the tests need."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FIRST_PAINT = 60.0


def find_chromium():
    """Path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class ProtocolError(AssertionError):
    """Chromium could not do what it was told."""


class Page:
    """One tab. Every call waits for its answer; console errors and uncaught exceptions gather in ``errors``."""

    def __init__(self, loop, socket):
        self._loop, self._socket, self._number = loop, socket, 0
        self.errors = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        return self._loop.run_until_complete(self._call(method, params))

    async def _call(self, method, params):
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = json.loads((await asyncio.wait_for(self._socket.receive(), FIRST_PAINT)).data)
            if message.get("id") == self._number:
                if "error" in message:
                    raise ProtocolError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, message):
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        if message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def run_first(self, script):
        """Run a script in every document before its own."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def open(self, url):
        self.errors.clear()
        self.call("Page.navigate", url=url)

    def evaluate(self, expression, context=None):
        """Value of a JavaScript expression, in the page or in one of its frames."""
        where = {} if context is None else {"contextId": context}
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, **where)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression, what, seconds=FIRST_PAINT):
        """Wait until an expression is true and give its value."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # a document that is only just loading has no body yet
            value = self.evaluate(f"(() => {{ try {{ return {expression} }} catch {{ return null }} }})()")
            if value:
                return value
            time.sleep(0.25)
        text = self.evaluate("document.body?.innerText.slice(0, 2000)")
        raise AssertionError(f"no {what} after {seconds:.0f} s; the page says:\n{text}")

    def frame_context(self, expression, what, seconds=FIRST_PAINT):
        """Id of an isolated world in the page's first frame, once an expression is true in it.

        It sees the frame's document but shares none of its scripts, and is gone when the frame loads another document.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for frame in self.call("Page.getFrameTree")["frameTree"].get("childFrames", [])[:1]:
                with suppress(ProtocolError):
                    world = self.call("Page.createIsolatedWorld", frameId=frame["frame"]["id"])["executionContextId"]
                    if self.evaluate(expression, world):
                        return world
            time.sleep(0.25)
        raise AssertionError(f"the page's frame shows no {what} after {seconds:.0f} s")

    def screenshot(self, path, width=1400, height=1000, scale=1.0):
        self.resize(width, height, scale)
        time.sleep(1.0)
        shot = self.call("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def resize(self, width, height, scale=1.0):
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)


@contextmanager
def browser(folder):
    """A page of a fresh headless Chromium whose profile lies in a folder."""
    command = [
        find_chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--mute-audio",
        "--hide-scrollbars", "--remote-debugging-port=0", "--disable-site-isolation-trials",
        "--disable-features=IsolateSandboxedIframes,IsolateOrigins,site-per-process,Translate",
        f"--user-data-dir={folder}", "--window-size=1400,1000", "about:blank",
    ]  # fmt: skip
    with (Path(folder) / "chromium.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    loop = asyncio.new_event_loop()
    try:
        port = _port(Path(folder) / "DevToolsActivePort", process)
        session = loop.run_until_complete(_session())
        try:
            socket = loop.run_until_complete(_socket(session, port))
            page = Page(loop, socket)
            page.resize(1400, 1000)
            yield page
        finally:
            loop.run_until_complete(session.close())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        loop.close()


def _port(file, process):
    deadline = time.monotonic() + FIRST_PAINT
    while time.monotonic() < deadline:
        if file.exists() and (found := re.match(r"(\d+)\n", file.read_text())):
            return int(found[1])
        assert process.poll() is None, "Chromium ended at once"
        time.sleep(0.1)
    raise AssertionError("Chromium did not open its DevTools port")


async def _session():
    return aiohttp.ClientSession()


async def _socket(session, port):
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        targets = await answer.json()
    page = next(target for target in targets if target["type"] == "page")
    return await session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
