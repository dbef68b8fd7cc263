"""The image that others are built on, fetched when the engine lacks it."""

from __future__ import annotations

import re
import threading
from contextlib import suppress

from docker import DockerClient
from docker.errors import APIError, ImageNotFound
from docker.utils import parse_repository_tag

from vbisect.builds.build_log import BuildLog
from vbisect.engine.faults import explanation, raise_host_fault
from vbisect.errors import Cancelled, HostError
from vbisect.reasons import SkipReason, Untestable
from vbisect.registry import ImageReference
from vbisect.registry.credentials import credentials_for
from vbisect.text import one_line

_NO_SUCH_IMAGE = re.compile(r"not found|manifest unknown|does not exist|no matching manifest")


def ensure_base(
    client: DockerClient, reference: str, log: BuildLog, cancel: threading.Event | None
) -> str:
    """The id of the image called ``reference``.

    Raises ``Untestable`` when no registry has it, ``HostError`` when it cannot be fetched,
    ``Cancelled`` when ``cancel`` is set.
    """
    with suppress(ImageNotFound):
        return str(client.images.get(reference).id)
    log.write(f"Fetching the base image {reference}.\n")
    repository, tag = parse_repository_tag(reference)
    registry = ImageReference.parse(reference).registry
    credentials = credentials_for(registry)
    login = credentials.for_engine(registry) if credentials else {}
    try:
        for event in client.api.pull(
            repository, tag=tag or "latest", auth_config=login, stream=True, decode=True
        ):
            if cancel is not None and cancel.is_set():
                raise Cancelled
            if "error" in event:
                raise _unavailable(reference, str(event["error"]))
            if "progressDetail" not in event or not event["progressDetail"]:
                log.write(f"{event.get('id', '')} {event.get('status', '')}\n".lstrip())
    except APIError as error:
        raise _unavailable(reference, explanation(error)) from None
    return str(client.images.get(reference).id)


def _unavailable(reference: str, words: str) -> HostError | Untestable:
    raise_host_fault(words)
    said = f"base image {reference} cannot be had: {one_line(words)}"
    if _NO_SUCH_IMAGE.search(words):
        return Untestable(SkipReason.BUILD_FAILED, said)
    return HostError(f"The {said}")
