"""HTTP connections, with what goes wrong in them told in plain words."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from vbisect import __version__
from vbisect.errors import HostError
from vbisect.text import one_line

USER_AGENT = f"vbisect/{__version__}"

_ENCODINGS = ("gzip", "deflate")
"""Of these a piece becomes at most a thousand times as long; of one within another, a million."""

_MOMENTARY = (
    httpx.TimeoutException,
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
)


def new_client(
    *, direct: bool, connect: float, read: float, verify: bool | ssl.SSLContext = True
) -> httpx.Client:
    """A client with timeouts in seconds; ``direct`` leaves the environment's proxies out.

    Raises ``HostError`` when the environment's settings cannot be used.
    """
    with _usable_settings():
        return httpx.Client(
            verify=verify,
            trust_env=not direct,
            timeout=httpx.Timeout(read, connect=connect),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": ", ".join(_ENCODINGS)},
        )


def new_context(*, direct: bool) -> ssl.SSLContext:
    """What a client trusts by itself, to add to. Raises ``HostError`` as ``new_client``."""
    with _usable_settings():
        return httpx.create_ssl_context(trust_env=not direct)


@contextmanager
def _usable_settings() -> Iterator[None]:
    try:
        yield
    except (ImportError, ValueError, OSError, httpx.InvalidURL):
        # the message could show a proxy's password
        raise HostError(
            "The environment's proxy or certificate settings cannot be used; look at "
            "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR."
        ) from None


class TooLarge(Exception):
    """An answer is larger than any that could be meant."""


class TooLate(Exception):
    """An answer was not whole in time."""


def read_whole(response: httpx.Response, most: int, until: float | None = None) -> bytes:
    """The body of a streamed response, of at most ``most`` bytes.

    ``until`` is on the monotonic clock; a client's own limit is on the wait for each piece. Raises
    ``TooLarge``, ``TooLate``, and whatever httpx does.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", *_ENCODINGS):
        raise httpx.DecodingError("its encoding was not asked for", request=response.request)
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > most:
            raise TooLarge
        if until is not None and time.monotonic() >= until:
            raise TooLate
    return bytes(body)


@contextmanager
def closed_after(client: httpx.Client, seconds: float) -> Iterator[None]:
    """End the block by closing ``client`` under it once ``seconds`` have gone; a new one each time.

    A server can send the head of an answer for ever, and each wait for more of it be short. Raises
    ``TooLate`` then, at most one such wait later.
    """
    over = threading.Event()

    def close() -> None:
        over.set()
        client.close()

    timer = threading.Timer(seconds, close)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:  # what a closed connection raises depends on where it was
        if over.is_set() and not isinstance(error, TooLarge | httpx.TimeoutException):
            raise TooLate from None
        raise
    finally:
        timer.cancel()
        timer.join()  # afterwards it can be told whether the client is closed


@contextmanager
def following(client: httpx.Client, request: httpx.Request) -> Iterator[httpx.Response]:
    """The streamed answer at the end of all redirects; only GET and HEAD are sent on.

    The bodies of redirects are not read, while httpx reads them to the end.
    """
    sent_on = request.method in ("GET", "HEAD")
    for _ in range(client.max_redirects):
        response = client.send(request, stream=True)
        try:
            if response.next_request is None or not sent_on:
                yield response
                return
            request = response.next_request
        finally:
            response.close()
    raise httpx.TooManyRedirects("too many redirects", request=request)


def can_be_token(value: str) -> bool:
    """Whether a header can carry ``value`` as it is; httpx quotes what it cannot send."""
    return re.fullmatch(r"[\x21-\x7e]+", value) is not None


def is_momentary(error: BaseException) -> bool:
    """Whether the same request may do later."""
    lasting = is_untrusted(error) or is_without_tls(error)
    return isinstance(error, _MOMENTARY) and not lasting


def fault_of(error: BaseException, connect: float, read: float) -> str:
    """What went wrong, without any text that a server could have put a token into.

    ``connect`` and ``read`` are the timeouts that were set, in seconds.
    """
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {connect:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {read:g} s"
    if is_without_tls(error):
        return "it answers without TLS, as plain HTTP does, where HTTPS was asked for"
    if isinstance(error, (httpx.NetworkError, httpx.ProxyError)):
        return one_line(re.sub(r"\[Errno -?\d+\] ", "", str(error))) or "the connection broke"
    return "what answers there does not keep to HTTP"


def advice_for(error: BaseException) -> str:
    """What a person can look at when a server cannot be talked to."""
    if is_untrusted(error):
        return "If its certificate has an authority of its own, name that in SSL_CERT_FILE."
    return "Check its name, the network and the proxy settings."


def is_untrusted(error: BaseException) -> bool:
    """Whether a certificate is not taken, the server's or one of ours."""
    reason = _tls_reason(error)
    return "CERTIFICATE" in reason or "UNKNOWN_CA" in reason


def is_without_tls(error: BaseException) -> bool:
    """Whether what answered was no TLS; by the reasons that urllib3's ``_wrap_proxy_error`` knows.

    https://github.com/urllib3/urllib3/blob/main/src/urllib3/connection.py
    """
    return _tls_reason(error) in (
        "WRONG_VERSION_NUMBER",
        "UNKNOWN_PROTOCOL",
        "RECORD_LAYER_FAILURE",
    )


def _tls_reason(error: BaseException | None) -> str:
    """OpenSSL's name for what went wrong below ``error``, if it was that."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error.reason or ""
        error = error.__cause__ or error.__context__
    return ""
