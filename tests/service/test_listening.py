"""The socket that the service listens on."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest
import uvicorn
from typer.testing import CliRunner

from qdrant_cir.cli.app import app
from qdrant_cir.errors import InputError
from qdrant_cir.service.run import listen


def test_an_answer_in_two_parts_does_not_wait_for_the_clients_acknowledgement() -> None:
    listening = listen(uvicorn.Config("", port=0, log_config=None))
    with listening, socket.create_connection(listening.getsockname()), closing(listening.accept()[0]) as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_is_named() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port} cannot be listened on"):
            listen(uvicorn.Config("", port=port, log_config=None))


@pytest.mark.parametrize(
    ("options", "said"), [(["--port", "99999"], "at most 65535"), (["--service-key", " "], "let everybody in")]
)
def test_a_port_that_cannot_be_and_an_empty_key_are_refused(options: list[str], said: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["serve", "--path", str(tmp_path), *options], env={"COLUMNS": "200"})
    assert told.exit_code == 3
    assert said in told.output
