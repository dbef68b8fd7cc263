"""Asks any registry that speaks the OCI distribution API which images there are.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from types import TracebackType

from pydantic import BaseModel

from vbisect.errors import HostError
from vbisect.registry.allowance import Allowance, allowance_in
from vbisect.registry.answer import Answer, ImageMissing, nonsense, query_of
from vbisect.registry.auth import Authenticator, refusal
from vbisect.registry.documents import ACCEPT, Descriptor, ImageConfig, Manifest
from vbisect.registry.image import RemoteImage, RemoteLayer
from vbisect.registry.reference import DIGEST, DOCKER_HUB, TAG, ImageReference
from vbisect.registry.retry import PATIENCE, OnWait, Patience
from vbisect.registry.transport import Request, Transport, is_loopback
from vbisect.text import one_line

__all__ = ["ImageMissing", "Registry", "RemoteImage", "RemoteLayer"]

_MOST_PAGES = 1000  # a list without end is no answer


class _TagList(BaseModel):
    tags: tuple[str, ...] | None = None


class Registry:
    """A client for all registries; threads may share it.

    ``plain_http`` says of HOST[:PORT] whether http will do, ``on_wait`` is told of each wait
    before a request is repeated. Every method raises ``HostError`` for a registry that does not
    answer, refuses access or answers nonsense, ``ImageMissing`` for what it does not have.
    """

    def __init__(
        self,
        *,
        plain_http: Callable[[str], bool] = is_loopback,
        on_wait: OnWait | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self._transport = Transport(plain_http, on_wait, patience)
        self._allowances: dict[str, Allowance] = {}
        self._authenticator = Authenticator(self._transport, plain_http)

    def __enter__(self) -> Registry:
        """Nothing is connected before the first question."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        self._transport.close()

    def allowance(self, registry: str) -> Allowance | None:
        """What is left of the pulls that ``registry`` allows, by its latest answer about an image.

        ``None`` where it has told nothing of it.
        """
        return self._allowances.get(registry)

    def digest(self, reference: ImageReference) -> str | None:
        """What the tag points at now; ``None`` when there is no such tag or repository.

        Asks by HEAD, which Docker Hub does not count as a pull.
        """
        path = f"manifests/{reference.target}"
        answer = self._ask("HEAD", reference, path)
        given: str | None = answer.headers.get("docker-content-digest")
        if answer.status == 200 and given is None:  # the header is optional
            answer = self._ask("GET", reference, path)
            given = _digest_of(answer.body)
        if answer.status == 404:
            return None
        if not re.fullmatch(DIGEST, given or ""):
            raise nonsense(reference.registry, f"a digest of {reference}")
        return given

    def tags(self, reference: ImageReference) -> tuple[str, ...]:
        """Every tag of the repository, in the registry's order; names that are none are left out.

        Raises ``ImageMissing`` when there is no such repository.
        """
        found: dict[str, None] = {}
        path = "tags/list"
        for _ in range(_MOST_PAGES):
            answer = self._present(self._ask("GET", reference, path), reference)
            page = answer.read(_TagList, reference.registry, "a list of tags")
            found |= dict.fromkeys(tag for tag in page.tags or () if re.fullmatch(TAG, tag))
            following = _next_page(answer)
            if following is None:
                return tuple(found)
            # only the question is taken from the link: the proof of who asks goes nowhere else
            path = f"tags/list?{following}"
        raise nonsense(reference.registry, "a list of tags that ends")

    def has(self, reference: ImageReference) -> bool:
        """Whether its repository is there; what a registry does not say for certain counts as so.

        https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
        """
        try:
            answer = self._ask("GET", reference, "tags/list?n=1")  # Docker Hub counts no pull
        except HostError:
            return True
        return answer.status != 404 or not answer.has_error("NAME_UNKNOWN")

    def image(self, reference: ImageReference, platform: str = "linux/amd64") -> RemoteImage:
        """What the image for ``platform`` (``os/architecture[/variant]``) is made of.

        Docker Hub counts this as a pull. Raises ``ImageMissing`` also when there is none for the
        platform.
        """
        top = self._present(self._ask("GET", reference, f"manifests/{reference.target}"), reference)
        digest = reference.digest or top.headers.get("docker-content-digest")
        digest = digest or _digest_of(top.body)
        manifest = _verified(top, digest, reference).read(
            Manifest, reference.registry, "an image manifest"
        )
        if manifest.manifests is not None:
            chosen = _for_platform(manifest.manifests, reference, platform)
            manifest = self._content(reference, "manifests", chosen).read(
                Manifest, reference.registry, "an image manifest"
            )
        if manifest.manifests or manifest.config is None or manifest.layers is None:
            raise nonsense(reference.registry, f"a manifest of {reference} that Docker could use")
        config = self._content(reference, "blobs", manifest.config.digest).read(
            ImageConfig, reference.registry, "an image configuration"
        )
        if not config.fits(platform):
            raise ImageMissing(
                f"{reference} has no image for {platform}, only for {one_line(str(config))}."
            )
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise nonsense(reference.registry, f"a configuration of {reference} that fits it")
        run = config.config
        return RemoteImage(
            reference=str(reference),
            digest=digest,
            layers=tuple(RemoteLayer(digest=it.digest, size=it.size) for it in manifest.layers),
            diff_ids=config.rootfs.diff_ids,
            created=config.created,
            labels=(run and run.labels) or {},
            entrypoint=(run and run.entrypoint) or (),
            variables=dict(_assignment(text) for text in (run and run.variables) or ()),
        )

    def _content(self, reference: ImageReference, kind: str, digest: str) -> Answer:
        """Content by its digest, which is checked."""
        answer = self._present(self._ask("GET", reference, f"{kind}/{digest}"), reference)
        return _verified(answer, digest, reference)

    def _present(self, answer: Answer, reference: ImageReference) -> Answer:
        if answer.status == 404:
            raise ImageMissing(f"{reference.registry} has no {reference}.")
        return answer

    def _ask(self, method: str, reference: ImageReference, path: str) -> Answer:
        """The registry's answer, 200 or 404; proof of who asks is given when it is asked for."""
        registry, repository = reference.registry, reference.repository
        host = "registry-1.docker.io" if registry == DOCKER_HUB else registry
        address = f"https://{host}/v2/{repository}/{path}"
        proof = self._authenticator.known(registry, repository)
        answer = self._send(method, address, registry, proof)
        # where another host refuses after a redirect, it is not this registry that asks for proof
        if answer.status == 401 and not answer.foreign:
            proof = self._authenticator.answer(answer, registry, repository, proof)
            if proof is not None:
                answer = self._send(method, address, registry, proof)
        if (left := allowance_in(answer)) is not None and not answer.foreign:
            self._allowances[registry] = left
        if answer.status in (401, 403):
            raise refusal(registry, repository)
        if answer.status not in (200, 404):
            raise HostError(
                f"{registry} answers {answer.named_status} when asked for {reference}; "
                "is it a container registry?"
            )
        return answer

    def _send(self, method: str, address: str, registry: str, proof: str | None) -> Answer:
        headers = {"Accept": ACCEPT} if "/manifests/" in address else {}
        if proof is not None:
            headers["Authorization"] = proof
        return self._transport.send(Request(method, address, registry, headers))


def _assignment(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _for_platform(
    manifests: tuple[Descriptor, ...], reference: ImageReference, platform: str
) -> str:
    others: list[str] = []
    for entry in manifests:
        if entry.platform is not None and entry.platform.fits(platform):
            return entry.digest
        others.append(str(entry.platform or "some other content"))
    listed = one_line(", ".join(others)) or "nothing"
    raise ImageMissing(f"{reference} has no image for {platform}, only {listed}.")


def _digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _verified(answer: Answer, digest: str, reference: ImageReference) -> Answer:
    algorithm, _, _ = digest.partition(":")
    if re.fullmatch(DIGEST, digest):
        found = hashlib.new(algorithm, answer.body).hexdigest()
        if f"{algorithm}:{found}" == digest:
            return answer
    raise nonsense(reference.registry, f"content of {reference} that has its digest")


def _next_page(answer: Answer) -> str | None:
    """The query of the page that ``Link: <…>; rel="next"`` names (RFC 8288)."""
    for link in re.finditer(r'<([^<>]*)>\s*;\s*rel="?next"?', answer.headers.get("link", "")):
        return query_of(link[1])
    return None
