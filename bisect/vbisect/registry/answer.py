"""One complete answer of a server, read into memory, none of which is trusted."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from vbisect.errors import HostError

Form = TypeVar("Form", bound=BaseModel)


class ImageMissing(Exception):
    """The registry has no such repository, tag or digest, or no image for the platform."""


class _Error(BaseModel):
    code: str


class _Errors(BaseModel):
    errors: tuple[_Error, ...]


@dataclass(frozen=True)
class Answer:
    """``foreign`` is whether another host gave it, after a redirect.

    Only the status is shown in its representation: the rest may hold tokens.
    """

    status: int
    headers: httpx.Headers = field(repr=False)
    body: bytes = field(repr=False)
    foreign: bool = False

    @property
    def named_status(self) -> str:
        """The status as people know it, such as ``429 Too Many Requests``."""
        known = self.status in HTTPStatus.__members__.values()
        return f"{self.status} {HTTPStatus(self.status).phrase}" if known else str(self.status)

    def has_error(self, code: str) -> bool:
        """Whether the body is a registry's own for a failure, and this is among its errors."""
        try:
            return any(
                error.code == code for error in _Errors.model_validate_json(self.body).errors
            )
        except ValidationError:
            return False

    def read(self, form: type[Form], sender: str, wanted: str) -> Form:
        """The body as ``form``. Raises ``HostError`` when it is something else."""
        try:
            return form.model_validate_json(self.body)
        except ValidationError:
            raise nonsense(sender, wanted) from None


def nonsense(sender: str, wanted: str) -> HostError:
    """The error for an answer that is not what was asked for."""
    return HostError(
        f"{sender} answered, but not with {wanted}; "
        "is it a container registry, and nothing else answering in its place?"
    )


def query_of(address: str) -> str | None:
    """What follows the question mark, in an address that may be none at all."""
    return address.partition("#")[0].partition("?")[2] or None
