"""The UI is served on a port that is free, or refused in one line."""

import socket

import pytest

from adpet.commands.ui import _require_free
from adpet.errors import TrackingError


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"port {port} cannot be used .*try another --port"):
            _require_free(port)
    _require_free(port)


def test_a_number_that_is_no_port_is_refused():
    with pytest.raises(TrackingError, match="required 1 to 65535; received 99999"):
        _require_free(99999)
