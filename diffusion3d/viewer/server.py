"""The web server of a viewer. viser is imported here, when a server is opened."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import logging
import socket
from typing import TYPE_CHECKING

from diffusion3d.errors import UserError

if TYPE_CHECKING:
    from viser import ViserServer

log = logging.getLogger(__name__)


def open_server(host: str, port: int) -> ViserServer:
    """Listen at host:port.

    Args:
        port: 0 is any that is free.

    Raises:
        UserError: viser is not there, or nobody can listen at that address.
    """
    try:
        import viser
    except ImportError as error:
        raise UserError(f"the viewer needs viser ({error}): pip install viser") from None

    class Server(viser.ViserServer):
        def request_share_url(self, verbose: bool = True) -> None:
            """No tunnel to the public: a page could ask for one."""

    _try(host, port)
    with _silent():
        server = Server(host, port, label="diffusion3d", verbose=False)
    if port not in (0, server.get_port()):
        close_server(server)
        raise UserError(f"port {port} of {host} was taken just now; choose another port")
    if not _is_loopback(host):
        log.warning("whoever reaches %s can see the scene and press the buttons", host)
    return server


def close_server(server: ViserServer) -> None:
    with _silent():
        server.stop()


def address(server: ViserServer) -> str:
    """The URL of the page."""
    host = server.get_host()
    return f"http://{f'[{host}]' if ':' in host else host}:{server.get_port()}"


def _try(host: str, port: int) -> None:
    """viser takes another port where one is taken, and waits for ever where none can be had."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "ports go from 0 to 65535"
        raise UserError(f"cannot listen at {host}, port {port}: {reason}; choose another port or host") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _silent() -> contextlib.redirect_stdout[io.StringIO]:
    """viser prints a banner when it starts and a line when it stops."""
    return contextlib.redirect_stdout(io.StringIO())
