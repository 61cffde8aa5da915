"""A real ``mlflow server`` on loopback, and a proxy before it that counts, delays, fails or is gone."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from lightning_ifa.tracking.spool import Spool


@contextlib.contextmanager
def patience():
    """Where all shall be written or uploaded when a training ends, a busy machine gets the time that it needs."""
    close = Spool.close
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Spool, "close", lambda sink, timeout, held=(): close(sink, 10 * timeout, held))
        yield


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """``mlflow server`` with one worker; ``kill`` ends it at once, ``start`` brings it back with its data."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.uri}/health", timeout=5).ok:
                    return self
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.3)
        raise TimeoutError("mlflow server did not start")

    def kill(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def never(number):
    return False


class Proxy:
    """Passes requests on and keeps a list of them.

    Attributes:
        seen: ``(method, path)`` of every request.
        delay: Seconds before an answer.
        fails: Takes the number of a request and tells whether it is answered by a 500.
        refuses: Takes method and path and gives the status that such a request is answered by, or None.
        dies: Takes the number of a request and tells whether its connection ends without an answer.
        half_way: Whether the first request that gets no answer is carried out all the same.
    """

    def __init__(self, port):
        self.seen = []
        self.reset()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                proxy.seen.append((self.command, self.path.partition("?")[0]))
                number = len(proxy.seen)
                dead = proxy.dies(number)
                if dead and not (proxy.half_way and not proxy.dies(number - 1)):
                    self.close_connection = True
                    return
                time.sleep(proxy.delay)
                refused = 500 if proxy.fails(number) else proxy.refuses(self.command, self.path)
                if refused:
                    self.send_error(refused)
                    return
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
                upstream.request(self.command, self.path, body, headers)
                found = upstream.getresponse()
                content = found.read()
                upstream.close()
                if dead:
                    self.close_connection = True
                    return
                self.send_response(found.status)
                for key, value in found.getheaders():
                    if key.lower() not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  # the names http.server asks for

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reset(self):
        self.seen.clear()
        self.delay, self.fails, self.dies, self.half_way = 0.0, never, never, False
        self.refuses = lambda method, path: None

    def close(self):
        self.server.shutdown()
        self.server.server_close()
