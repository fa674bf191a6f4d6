"""Can a server be reached? A probe of seconds, before a library that would retry for half a minute."""

from __future__ import annotations

import queue
import socket
import threading
import urllib.request
from urllib.parse import urlsplit

PROBE_SECONDS = 4.0


def reachable(url: str, *, seconds: float = PROBE_SECONDS) -> bool:
    """Whether the server of a URL, or the proxy in front of it, takes a TCP connection within ``seconds``."""
    host, port = _first_hop(url)
    answers: queue.Queue[bool] = queue.Queue()
    # A thread, because name resolution knows no timeout of its own.
    threading.Thread(target=lambda: answers.put(_connects(host, port, seconds)), daemon=True).start()
    try:
        return answers.get(timeout=seconds + 1.0)
    except queue.Empty:
        return False


def _first_hop(url: str) -> tuple[str, int]:
    """Host and port of the server, or of the proxy the environment names for it."""
    target = urlsplit(url)
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and not urllib.request.proxy_bypass(target.hostname or ""):
        target = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    return target.hostname or "", target.port or (443 if target.scheme == "https" else 80)


def _connects(host: str, port: int, seconds: float) -> bool:
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except (OSError, UnicodeError):  # UnicodeError: a host name that is none
        return False
    return True
