"""The probe: a server that answers, one that does not, a name without end, a proxy in front."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from structlin.host import network
from structlin.host.network import reachable


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_a_listening_server_is_reachable(server: str) -> None:
    assert reachable(f"http://{server}/path")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://no-such-host.invalid", "https://" + "a" * 70 + ".b"])
@pytest.mark.usefixtures("server")
def test_others_are_not(url: str) -> None:
    assert not reachable(url)


@pytest.mark.usefixtures("server")
def test_a_name_that_is_never_resolved_does_not_hold_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_connects", lambda *_: time.sleep(5))
    began = time.monotonic()
    assert not reachable("https://slow.example", seconds=-0.8)  # waits a second longer than the connection may take
    assert time.monotonic() - began < 1


def test_a_proxy_is_probed_in_place_of_the_server(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://{server}")
    assert reachable("https://no-such-host.invalid")
    monkeypatch.setenv("https_proxy", "127.0.0.1:9")
    assert not reachable("https://no-such-host.invalid")
