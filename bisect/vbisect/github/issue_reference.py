"""The name of an issue or pull request, as people write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from vbisect.errors import UsageError

_OWNER = r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}"
_NAME = r"(?!\.{1,2}(?:[/#]|$))[A-Za-z0-9._-]{1,100}"
_NUMBER = r"[1-9][0-9]{0,17}"


@dataclass(frozen=True)
class IssueReference:
    """``repository`` is OWNER/REPO."""

    repository: str
    number: int

    def __str__(self) -> str:
        return f"{self.repository}#{self.number}"

    @classmethod
    def parse(cls, text: str, host: str) -> IssueReference:
        """From OWNER/REPO#N or the address of its page on ``host``; raises ``UsageError``."""
        text = text.strip()
        found = re.fullmatch(rf"({_OWNER}/{_NAME})#({_NUMBER})", text)
        if found is None and re.match("https?://", text):
            page = _split(text)
            if page.netloc.lower() not in (host, f"www.{host}"):
                raise UsageError(f"{text} is not on {host}, the GitHub of GITHUB_API_URL.")
            found = re.match(rf"/({_OWNER}/{_NAME})/(?:issues|pull)/({_NUMBER})(?:/|$)", page.path)
        if found is None:
            raise UsageError(
                f"{text} names no issue: write OWNER/REPO#N, as in vllm-project/vllm#17173, "
                "or the address of its page."
            )
        return cls(found[1], int(found[2]))


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
