"""Download of a file over https, within limits of time and size."""

from __future__ import annotations

import http.client
import ipaddress
import queue
import sys
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from tqdm import tqdm

GRACE = 30.0  # seconds that every mirror gets
SLOWEST = 20_000.0  # bytes per second that a mirror must average after that


class UntrustedError(Exception):
    """An address whose answer anyone on the network path could forge."""


class SlowError(Exception):
    """A mirror sends less than `SLOWEST`."""


class SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to an address that `check_address` accepts."""

    def http_error_302(self, req, fp, code, msg, headers):
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except Exception:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_address(url: str) -> None:
    """Accept only https, or http on this machine, where no network path is involved."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise UntrustedError(f"expected an https address. Received: {url[:200]!r}")


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def download(url: str, largest: int) -> bytearray:
    """Return the body of a response; raise an error if it exceeds ``largest`` bytes, is incomplete, or is too slow.

    A separate thread receives it, because only a thread can limit the time of every step: the name lookup, the connection,
    proxies, redirects, and headers or a body that arrive slowly.
    """
    body = bytearray()
    stop = threading.Event()
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            receive(url, largest, body, stop)
            outcome.put(None)
        except Exception as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            outcome.put(error)

    started = time.monotonic()
    threading.Thread(target=work, daemon=True).start()
    with tqdm(desc=url.rsplit("/", 1)[-1], unit="B", unit_scale=True, disable=not is_terminal()) as bar:
        try:
            while (left := started + GRACE + len(body) / SLOWEST - time.monotonic()) > 0:
                try:
                    error = outcome.get(timeout=min(left, 0.2))
                except queue.Empty:
                    bar.update(len(body) - bar.n)
                    continue
                if error:
                    raise error
                return body
            received = f"{len(body):,} bytes in {time.monotonic() - started:.0f} s"
            raise SlowError(f"expected at least {SLOWEST:,.0f} bytes per second. Received: {received}")
        finally:
            stop.set()


def is_terminal() -> bool:
    return bool(sys.stderr and sys.stderr.isatty())


def receive(url: str, largest: int, body: bytearray, stop: threading.Event) -> None:
    """Append a response to the body until `stop` is set."""
    check_address(url)
    request = urllib.request.Request(url, headers={"User-Agent": "xpnet"})
    with urllib.request.build_opener(SecureRedirects).open(request, timeout=GRACE) as response:
        length = response.headers.get("Content-Length", "")
        expected = int(length) if length.isascii() and length.isdecimal() else 0
        while not stop.is_set() and max(expected, len(body)) <= largest and (block := response.read1(2**16)):
            body += block
        if max(expected, len(body)) > largest:
            raise http.client.HTTPException(f"expected at most {largest:,} bytes. Received: more")
        if len(body) < expected:
            raise http.client.IncompleteRead(bytes(0), expected - len(body))


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (408, 429) or error.code >= 500
    if isinstance(error, urllib.error.URLError):
        error = error.reason if isinstance(error.reason, Exception) else error
    passing = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, TimeoutError, http.client.IncompleteRead)
    return isinstance(error, passing)
