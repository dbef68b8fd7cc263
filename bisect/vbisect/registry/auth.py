"""The proof that a registry asks for before it answers: a token, or the login itself."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, Field

from vbisect.connections import can_be_token
from vbisect.errors import HostError
from vbisect.registry.answer import Answer, nonsense
from vbisect.registry.credentials import Credentials, credentials_for, login_advice
from vbisect.registry.transport import Request, Transport
from vbisect.text import one_line

_CHALLENGE = re.compile(
    r'(?P<name>[\w-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s",]+))|(?P<scheme>[\w-]+)'
)
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class _Token(BaseModel):
    """https://distribution.github.io/distribution/spec/auth/token/#token-response-fields"""

    token: str = Field(default="", repr=False)
    access_token: str = Field(default="", repr=False)
    expires_in: float | None = None

    @property
    def value(self) -> str:
        return self.token or self.access_token


@dataclass(frozen=True)
class _Proof:
    header: str = field(repr=False)
    until: float  # time.monotonic()


class Authenticator:
    """Answers a registry's 401; a token is kept for its repository until it expires."""

    def __init__(self, transport: Transport, plain_http: Callable[[str], bool]) -> None:
        self._transport = transport
        self._plain_http = plain_http
        self._proofs: dict[tuple[str, str], _Proof] = {}
        self._lock = threading.Lock()

    def known(self, registry: str, repository: str) -> str | None:
        """The ``Authorization`` header that served last and is still good."""
        proof = self._proofs.get((registry, repository))
        return proof.header if proof and time.monotonic() < proof.until else None

    def answer(
        self, challenge: Answer, registry: str, repository: str, refused: str | None
    ) -> str | None:
        """The ``Authorization`` header to try after ``challenge``, a 401 to ``refused``.

        ``None`` when nothing is left to try. Raises ``HostError`` when the token service fails.
        """
        offered = challenges(challenge.headers.get_list("www-authenticate"))
        with self._lock:
            known = self.known(registry, repository)
            if known is not None and known != refused:
                return known  # another thread was faster
            credentials = credentials_for(registry)
            if "bearer" in offered:
                proof = self._token(offered["bearer"], registry, repository, credentials)
            elif "basic" in offered and credentials and credentials.password:
                proof = _Proof(credentials.basic, float("inf"))
            else:
                return None
            self._proofs[registry, repository] = proof
            return proof.header if proof.header != refused else None

    def _token(
        self,
        parameters: dict[str, str],
        registry: str,
        repository: str,
        credentials: Credentials | None,
    ) -> _Proof:
        realm = parameters.get("realm", "")
        if _scheme(realm) not in (("https", "http") if self._plain_http(registry) else ("https",)):
            raise HostError(
                f"{registry} wants its tokens fetched from {one_line(realm) or 'nowhere'}, "
                "which is not safe; only https is."
            )
        asked = {"scope": f"repository:{repository}:pull"}
        if service := parameters.get("service"):
            asked["service"] = service
        started = time.monotonic()
        answer = self._transport.send(_token_request(realm, registry, asked, credentials))
        if answer.status in (400, 401, 403):
            raise refusal(registry, repository)
        token = answer.read(_Token, registry, "a token") if answer.status == 200 else _Token()
        if not can_be_token(token.value):
            raise nonsense(registry, "a token")
        lifetime = 60 if token.expires_in is None else token.expires_in
        return _Proof(f"Bearer {token.value}", started + lifetime)


def _scheme(address: str) -> str:
    try:
        return httpx.URL(address).scheme
    except httpx.InvalidURL:
        return ""


def _token_request(
    realm: str, registry: str, asked: dict[str, str], credentials: Credentials | None
) -> Request:
    """With an identity token by OAuth2, else with the password if there is one.

    https://distribution.github.io/distribution/spec/auth/oauth/
    """
    if credentials and credentials.identity_token:
        form = {
            **asked,
            "client_id": "vbisect",
            "grant_type": "refresh_token",
            "refresh_token": credentials.identity_token,
        }
        return Request("POST", str(httpx.URL(realm)), registry, _FORM, urlencode(form))
    if credentials:
        asked = {**asked, "account": credentials.username}
    address = str(httpx.URL(realm).copy_merge_params(asked))
    headers = {"Authorization": credentials.basic} if credentials else {}
    return Request("GET", address, registry, headers)


def challenges(headers: Sequence[str]) -> dict[str, dict[str, str]]:
    """The parameters of each scheme that ``WWW-Authenticate`` offers (RFC 9110, 11.6.1)."""
    offered: dict[str, dict[str, str]] = {}
    for header in headers:
        current: dict[str, str] = {}
        for part in _CHALLENGE.finditer(header):
            if part["scheme"]:
                current = offered.setdefault(part["scheme"].lower(), {})
            else:
                quoted = re.sub(r"\\(.)", r"\1", part["quoted"] or "")
                current[part["name"].lower()] = quoted or part["bare"] or ""
    return offered


def refusal(registry: str, repository: str) -> HostError:
    """The error for a repository that may not be read with the login there is."""
    credentials, login = credentials_for(registry), login_advice(registry)
    if credentials:
        return HostError(
            f"{registry} does not let your login read {repository}: there is no such repository, "
            f"or the login has ended or lacks the right; log in again with {login}."
        )
    return HostError(
        f"{registry} does not let everybody read {repository}: there is no such repository, "
        f"or it needs a login, and Docker's configuration gives none; log in with {login}."
    )
