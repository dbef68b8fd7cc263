"""Which GitHub is meant: the address of its API, and the host its pages are on."""

from __future__ import annotations

import os
from dataclasses import dataclass

import httpx

from vbisect.errors import UsageError
from vbisect.registry import is_loopback

_DEFAULT = "https://api.github.com"


@dataclass(frozen=True)
class ApiAddress:
    """``base`` has no slash at its end."""

    base: str

    @classmethod
    def from_environment(cls) -> ApiAddress:
        """``GITHUB_API_URL``, else github.com's; raises ``UsageError`` for an unsafe one."""
        asked = os.environ.get("GITHUB_API_URL", "").strip() or _DEFAULT
        try:
            url = httpx.URL(asked)
        except httpx.InvalidURL:
            raise UsageError("GITHUB_API_URL is not an address.") from None
        if url.userinfo or url.query or url.fragment:
            raise UsageError("GITHUB_API_URL may hold no login, query or fragment.")
        safe = url.scheme == "https" or (url.scheme == "http" and is_loopback(_netloc(url)))
        if not url.host or not safe:
            raise UsageError(f"GITHUB_API_URL is {asked}: only https is safe there.")
        return cls(str(url).rstrip("/"))

    @property
    def direct(self) -> bool:
        """Whether it is this machine, which is never asked through a proxy."""
        return is_loopback(_netloc(httpx.URL(self.base)))

    @property
    def web_host(self) -> str:
        """HOST[:PORT] of the pages; those of GitHub Enterprise are beside the API."""
        return _netloc(httpx.URL(self.base)).removeprefix("api.")

    def of(self, path: str) -> str:
        """The whole address of a path such as ``/user``."""
        return self.base + path

    def owns(self, address: httpx.URL) -> bool:
        """Whether ``address`` is on the same host, by the same scheme and port."""
        own = httpx.URL(self.base)
        return (own.scheme, own.host, own.port) == (address.scheme, address.host, address.port)


def _netloc(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")
