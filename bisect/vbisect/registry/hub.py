"""The tags of a Docker Hub repository with their digests and dates.

https://docs.docker.com/reference/api/hub/latest/#tag/repositories/operation/ListRepositoryTags
"""

from __future__ import annotations

import json
import re
from contextlib import closing
from datetime import datetime
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from vbisect.connections import can_be_token
from vbisect.errors import HostError
from vbisect.registry.answer import Answer, ImageMissing, nonsense, query_of
from vbisect.registry.credentials import credentials_for, login_advice
from vbisect.registry.reference import DIGEST, DOCKER_HUB, TAG, ImageReference
from vbisect.registry.retry import PATIENCE, OnWait, Patience
from vbisect.registry.transport import Request, Transport, is_loopback

HUB = "https://hub.docker.com"

_MOST_PAGES = 1000  # a list without end is no answer


class HubTag(BaseModel):
    """One tag: ``digest`` of its index or image (old tags have none), ``size`` in bytes."""

    model_config = ConfigDict(frozen=True)

    name: str
    digest: str | None
    size: int
    updated: datetime


class TagsCutOff(HostError):
    """Docker Hub shows only the first thousand tags without a login; ``tags`` are those."""

    def __init__(self, message: str, tags: tuple[HubTag, ...]) -> None:
        super().__init__(message)
        self.tags = tags


class _Tag(BaseModel):
    name: str
    digest: str | None = None
    full_size: int | None = None
    last_updated: datetime | None = None


class _Page(BaseModel):
    next: str | None = None
    results: tuple[_Tag, ...]


class _Session(BaseModel):
    access_token: str = Field(repr=False)


def hub_tags(
    repository: str,
    *,
    base_url: str = HUB,
    on_wait: OnWait | None = None,
    patience: Patience = PATIENCE,
) -> tuple[HubTag, ...]:
    """Every tag of ``repository`` (``NAMESPACE/NAME``) that has a date, in Docker Hub's order.

    Raises ``ImageMissing``, ``TagsCutOff`` when there are more than may be seen without a login,
    ``HostError`` when Docker Hub does not answer, ``UsageError`` when that is no repository.
    """
    namespace, _, name = ImageReference.parse(repository).repository.partition("/")
    tags: dict[str, HubTag] = {}
    query: str | None = "page=1&page_size=100"
    with closing(Transport(is_loopback, on_wait, patience)) as transport:
        hub = _Hub(transport, base_url)
        for _ in range(_MOST_PAGES):
            if query is None:
                return tuple(tags.values())
            answer = hub.ask(f"/v2/namespaces/{namespace}/repositories/{name}/tags?{query}")
            if answer.status == 403 and tags:
                raise TagsCutOff(
                    f"{hub.account} shows only the first {len(tags)} tags of {repository} without "
                    f"a login; log in with {login_advice(hub.account)}.",
                    tuple(tags.values()),
                )
            if answer.status in (401, 403, 404):
                raise ImageMissing(f"{hub.account} shows no repository {repository}.")
            if answer.status != 200:
                raise HostError(f"{hub.account} answers {answer.named_status}; try again later.")
            page = answer.read(_Page, hub.account, "a list of tags")
            tags |= {tag.name: tag for tag in map(_tag, page.results) if tag is not None}
            query = query_of(page.next or "")
    raise nonsense(hub.account, "a list of tags that ends")


class _Hub:
    """Asks anonymously, and from the first refusal on with the login in Docker's configuration.

    Without one, Docker Hub has refused every page beyond the thousandth tag since August 2026
    (goharbor/harbor#23819): "pagination offset too large for anonymous requests".
    """

    def __init__(self, transport: Transport, base_url: str) -> None:
        self._transport = transport
        self._base_url = base_url.rstrip("/")
        host = urlsplit(base_url).netloc
        self.account = DOCKER_HUB if base_url == HUB else host
        self._headers: dict[str, str] = {}

    def ask(self, path: str) -> Answer:
        answer = self._get(path)
        if answer.status in (401, 403) and not self._headers and self._sign_in():
            answer = self._get(path)
        return answer

    def _get(self, path: str) -> Answer:
        address = f"{self._base_url}{path}"
        return self._transport.send(Request("GET", address, self.account, self._headers))

    def _sign_in(self) -> bool:
        """https://docs.docker.com/reference/api/hub/latest/operations/AuthCreateAccessToken/"""
        credentials = credentials_for(self.account)
        if credentials is None or not credentials.password:
            return False
        pair = {"identifier": credentials.username, "secret": credentials.password}
        answer = self._transport.send(
            Request(
                "POST",
                f"{self._base_url}/v2/auth/token",
                self.account,
                {"Content-Type": "application/json"},
                json.dumps(pair),
            )
        )
        if answer.status != 200:
            return False
        token = answer.read(_Session, self.account, "a token").access_token
        if not can_be_token(token):
            raise nonsense(self.account, "a token")
        self._headers = {"Authorization": f"Bearer {token}"}
        return True


def _tag(found: _Tag) -> HubTag | None:
    """``None`` for what cannot be pulled, or has no date."""
    if not re.fullmatch(TAG, found.name) or found.last_updated is None:
        return None
    digest = found.digest if re.fullmatch(DIGEST, found.digest or "") else None
    return HubTag(
        name=found.name,
        digest=digest,
        size=max(0, found.full_size or 0),
        updated=found.last_updated,
    )
