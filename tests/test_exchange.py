"""One request and its answer: whatever a server does with it, it ends, and is told in words."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vbisect.connections import TooLarge
from vbisect.errors import HostError
from vbisect.launch import readiness
from vbisect.launch.signs import Counters
from vbisect.probes import exchange as exchange_module
from vbisect.probes.exchange import Reply, Unanswered, exchange
from vbisect.reasons import SkipReason, Untestable

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@contextmanager
def serving(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """Answers one request with what ``answer`` sends; the address. The event: nobody waits."""
    over = threading.Event()

    def serve() -> None:
        with suppress(OSError):  # nobody comes, or goes away again
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                answer(connection, over)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)  # closing alone wakes no accept
            thread.join(60)
            assert not thread.is_alive()


def sends(data: bytes) -> Callable[[socket.socket, threading.Event], None]:
    """Sends this and closes."""
    return lambda connection, _: connection.sendall(data)


def waits(_: socket.socket, over: threading.Event) -> None:
    """Says nothing."""
    over.wait(60)


def drips(connection: socket.socket, over: threading.Event) -> None:
    """A byte now and then, without an end: no wait for one is long."""
    connection.sendall(CHUNKED)
    while not over.wait(0.02):
        connection.sendall(b"1\r\nx\r\n")


def hints(connection: socket.socket, over: threading.Event) -> None:
    """Heads of answers that are yet to come, without an end."""
    while not over.wait(0.02):
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")


def heads(connection: socket.socket, over: threading.Event) -> None:
    """A head now and then, a letter at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    while not over.wait(0.02):
        connection.sendall(b"x")


def pours(connection: socket.socket, over: threading.Event) -> None:
    """Much at once, without an end."""
    connection.sendall(CHUNKED)
    while not over.is_set():
        connection.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")


def asked(address: str, seconds: float = 60, headers: dict[str, str] | None = None) -> Reply:
    return exchange("GET", address, headers=headers or {}, direct=True, seconds=seconds)


@pytest.mark.parametrize("answer", [drips, hints, heads])
def test_an_answer_that_drips_is_given_up_in_time(
    answer: Callable[[socket.socket, threading.Event], None],
) -> None:
    with (
        serving(answer) as address,
        pytest.raises(Unanswered, match=r"^no whole answer within 0\.3 s$"),
    ):
        asked(address, 0.3)


def test_a_server_whose_head_has_no_end_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It boots no longer than it may; nobody else waits for it."""
    monkeypatch.setattr(readiness, "_ANSWER_SECONDS", 0.2)
    over = threading.Event()
    with serving(hints) as address, pytest.raises(Untestable) as skipped:
        readiness.wait_until_ready(
            address.rstrip("/"), tmp_path / "log", lambda: None, Counters, 0.3, over
        )
    assert skipped.value.reason is SkipReason.BOOT_TIMEOUT


def test_silence_is_given_up_in_time() -> None:
    with (
        serving(waits) as address,
        pytest.raises(Unanswered, match=r"^no answer within 0\.2 s$"),
    ):
        asked(address, 0.2)


def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "LARGEST_ANSWER", 1 << 20)
    with serving(pours) as address, pytest.raises(TooLarge, match="larger than 1 MiB"):
        asked(address)


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip, deflate", "br", "zstd", "x-gzip"])
def test_an_answer_is_unpacked_once(encoding: str) -> None:
    """Packed twice, some thousand bytes are gigabytes."""
    packed = gzip.compress(gzip.compress(bytes(1 << 20)))
    head = f"content-encoding: {encoding}\r\ncontent-length: {len(packed)}\r\n\r\n"
    with (
        serving(sends(HEAD + head.encode() + packed)) as address,
        pytest.raises(Unanswered, match="its encoding was not asked for"),
    ):
        asked(address)


def test_a_packed_answer_is_read() -> None:
    packed = gzip.compress(b"told")
    head = f"content-encoding: GZip\r\ncontent-length: {len(packed)}\r\n\r\n"
    with serving(sends(HEAD + head.encode() + packed)) as address:
        assert asked(address).text == "told"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x16\x03\x01\x02",
        HEAD + b"content-length: 9\r\n\r\nhalf",
        CHUNKED + b"5\r\nhello\r\n",
        HEAD + b"content-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd",
    ],
)
def test_a_broken_answer_is_none(answer: bytes) -> None:
    with (
        serving(sends(answer)) as address,
        pytest.raises(Unanswered, match=r"^the connection broke: .") as told,
    ):
        asked(address)
    assert str(told.value).isprintable()


@pytest.mark.parametrize(
    "charset", ["hex", "idna", "undefined", "utf-16", "nonesuch", '"', "latin-1"]
)
def test_the_encoding_that_an_answer_names_is_passed_over(charset: str) -> None:
    """JSON is UTF-8 (RFC 8259), and some names crash what looks them up."""
    body = "drei Wörter \N{SNOWMAN}".encode()
    head = (
        f"content-type: application/json; charset={charset}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with serving(sends(b"HTTP/1.1 200 OK\r\n" + head.encode() + body)) as address:
        assert asked(address) == Reply(200, body.decode())


@given(st.binary(max_size=300))
def test_any_bytes_are_a_text(body: bytes) -> None:
    head = HEAD + f"content-length: {len(body)}\r\n\r\n".encode()
    with serving(sends(head + body)) as address:
        assert asked(address).text == body.decode("utf-8", "replace")


@pytest.mark.parametrize(
    "value", ["secret-0\r", "secret-0\n", "secret-0\N{SNOWMAN}", "\ud800secret-0"]
)
def test_what_cannot_be_sent_is_not_shown(value: str) -> None:
    with (
        serving(sends(HEAD + b"content-length: 0\r\n\r\n")) as address,
        pytest.raises(Unanswered, match="the request cannot be sent") as told,
    ):
        asked(address, headers={"authorization": value})
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTP_PROXY", "foo://127.0.0.1:9"),
        ("HTTP_PROXY", "http://user:wordword@127.0.0.1:x"),
        ("SSL_CERT_FILE", "/nonexistent.pem"),
    ],
)
def test_settings_that_cannot_be_used_are_the_hosts_trouble(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(other, raising=False)
        monkeypatch.delenv(other.lower(), raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(HostError, match="proxy or certificate settings cannot be used") as told:
        exchange("GET", "http://127.0.0.1:9/", headers={}, direct=False, seconds=1)
    assert "wordword" not in str(told.value)
    with pytest.raises(Unanswered):
        asked("http://127.0.0.1:9/")
