"""An image reference as Docker reads it: registry, repository, tag or digest."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vbisect.errors import UsageError
from vbisect.text import one_line

DOCKER_HUB = "docker.io"
DIGEST = r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"
TAG = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"

# the grammar: https://github.com/distribution/reference/blob/main/reference.go
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"^({_LABEL}(\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(:[0-9]{{1,5}})?$"
_COMPONENT = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"^{_COMPONENT}(/{_COMPONENT})*$"

_RULES = {
    "registry": "its registry is no HOST or HOST:PORT",
    "repository": "a repository is lower-case letters and digits, joined by . _ - and /",
    "tag": "a tag is at most 128 letters, digits, and . _ -",
    "digest": "a digest is sha256: and 64 hexadecimal digits",
}


class ImageReference(BaseModel):
    """One image, or one repository when there is neither ``tag`` nor ``digest``.

    ``registry`` is HOST or HOST:PORT, ``docker.io`` for Docker Hub, where a single name is
    ``library/NAME``.
    """

    model_config = ConfigDict(frozen=True)

    registry: Annotated[str, Field(pattern=_HOST)]
    repository: Annotated[str, Field(pattern=_REPOSITORY, max_length=255)]
    tag: Annotated[str, Field(pattern=TAG)] | None = None
    digest: Annotated[str, Field(pattern=DIGEST)] | None = None

    @staticmethod
    def parse(text: str) -> ImageReference:
        """``[HOST[:PORT]/]NAME[:TAG][@DIGEST]``; with a digest, the tag means nothing and goes.

        As for Docker, what stands before the first slash is a host when it contains a dot or a
        colon, or is ``localhost``. Raises ``UsageError``.
        """
        if "://" in text:
            raise UsageError(f"{one_line(text)} is no image reference: leave out what ends in ://.")
        rest, at, digest = text.partition("@")
        host, slash, path = rest.partition("/")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            host, path = DOCKER_HUB, rest
        if host == "index.docker.io":
            host = DOCKER_HUB
        name, colon, tag = path.partition(":")
        if host == DOCKER_HUB and "/" not in name:
            name = f"library/{name}"
        return _made(
            text,
            registry=host,
            repository=name,
            tag=tag if colon and not at else None,
            digest=digest if at else None,
        )

    def with_tag(self, tag: str) -> ImageReference:
        """The image that ``tag`` names in this repository. Raises ``UsageError``."""
        asked = f"{self.name}:{tag}"
        return _made(asked, registry=self.registry, repository=self.repository, tag=tag)

    def with_digest(self, digest: str) -> ImageReference:
        """The image with exactly this content in this repository. Raises ``UsageError``."""
        asked = f"{self.name}@{digest}"
        return _made(asked, registry=self.registry, repository=self.repository, digest=digest)

    @property
    def name(self) -> str:
        """The repository as people write it: without ``docker.io/`` and ``library/``."""
        if self.registry == DOCKER_HUB:
            return self.repository.removeprefix("library/")
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest, else the tag, else Docker's default tag."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        """What ``docker pull`` takes."""
        if self.digest:
            return f"{self.name}@{self.digest}"
        return f"{self.name}:{self.tag}" if self.tag else self.name


def login_command(registry: str) -> str:
    """What a user types to log in at ``registry``."""
    return "docker login" if registry == DOCKER_HUB else f"docker login {registry}"


def _made(text: str, **parts: Any) -> ImageReference:
    try:
        return ImageReference(**parts)
    except ValidationError as error:
        rule = _RULES[str(error.errors()[0]["loc"][0])]
    raise UsageError(f"{one_line(text) or 'An empty text'} is no image reference: {rule}.")
