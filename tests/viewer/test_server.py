import builtins
import socket
import sys
import urllib.request

import pytest

from diffusion3d.errors import UserError
from diffusion3d.viewer.server import address, close_server, open_server


def test_the_page_is_served_on_this_machine_alone_and_viser_is_quiet(capfd):
    server = open_server("127.0.0.1", 0)
    try:
        url = address(server)
        assert url.startswith("http://127.0.0.1:") and int(url.rpartition(":")[2]) > 0
        assert b"<html" in urllib.request.urlopen(url, timeout=10).read(2000)
        assert server.request_share_url() is None
    finally:
        close_server(server)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5)
    assert capfd.readouterr().out == ""


def test_other_machines_are_warned_of(caplog):
    close_server(open_server("0.0.0.0", 0))
    assert "whoever reaches 0.0.0.0" in caplog.text


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "::2"])
def test_a_host_that_is_not_here(host):
    with pytest.raises(UserError, match=f"cannot listen at {host}, port 0: .*; choose another"):
        open_server(host, 0)


def test_a_port_that_is_taken_or_none():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen at 127.0.0.1, port {port}: Address already in use"):
            open_server("127.0.0.1", port)
    with pytest.raises(UserError, match="ports go from 0 to 65535"):
        open_server("127.0.0.1", 99_999)


def test_viser_is_not_there(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name == "viser":
            raise ModuleNotFoundError("No module named 'viser'")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "viser", raising=False)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"needs viser \(No module named 'viser'\): pip install viser"):
        open_server("127.0.0.1", 0)
