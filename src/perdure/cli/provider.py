"""``perdure provider``: the embedded provider in the foreground."""

from __future__ import annotations

import socket
import threading
import time
from typing import Final

import typer

from perdure.errors import ConfigurationError
from perdure.testing.provider import serve

_WAIT_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.02

_USE: Final = """\
perdure provider: {origin}/v1

Any OpenAI client can use it, with any key; each key sees its own objects.
  export OPENAI_BASE_URL={origin}/v1 OPENAI_API_KEY=demo

Controls: JSON over HTTP under {origin}/_provider
  POST /forget    {{"handle": "conv_..."}}                      lose one id; {{}} loses all
  POST /expire    {{"kind": "responses", "seconds": 2592000}}   lose what is idle for so long
  POST /clock     {{"advance_seconds": 86400}}                  turn the clock
  POST /faults    {{"kind": "status", "status": 500}}           spoil the next answer
  POST /script    {{"outputs": ["Hello!"]}}                     say what the model answers next
  GET  /requests                                              what has arrived so far

Ctrl-C stops it; nothing is kept.
"""


def run_provider(host: str, port: int) -> None:
    """Serve until Ctrl-C; says where once it accepts connections."""
    port = _usable(host, port)
    threading.Thread(target=_announce, args=(host, port), daemon=True).start()
    try:
        serve(host, port)
    except SystemExit:
        # uvicorn leaves this way when somebody else took the port in between.
        raise ConfigurationError(f"The provider could not start on {host}:{port}.") from None
    # It ends for one reason only, and swallows it.
    raise KeyboardInterrupt


def _usable(host: str, port: int) -> int:
    """Return the port, or a free one for 0, if it can be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the server does it: a port whose last owner just left is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"Cannot listen on {host}:{port}: {reason}. Choose another with --port or --host."
        ) from None


def _announce(host: str, port: int) -> None:
    """Print how to use the provider as soon as it answers, so that a script can wait for it."""
    shown = f"[{host}]" if ":" in host else host
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            time.sleep(_LOOK_SECONDS)
        else:
            typer.echo(_USE.format(origin=f"http://{shown}:{port}"))
            return
