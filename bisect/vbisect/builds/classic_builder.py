"""One build by a Docker engine's own builder, the one that every engine has."""

from __future__ import annotations

import io
import json
import re
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

import requests
from docker import DockerClient
from urllib3.exceptions import HTTPError

from vbisect.builds.build_log import BuildLog
from vbisect.builds.uv import UvResult
from vbisect.engine.faults import raise_host_fault
from vbisect.errors import Cancelled, EngineLost, HostError
from vbisect.reasons import SkipReason, Untestable
from vbisect.text import one_line

_FAILED_COMMAND = re.compile(r"returned a non-zero code: \d+")
_APT_NETWORK = re.compile(
    r"Temporary failure resolving|Unable to connect to|Could not handshake|Could not connect to"
)


@dataclass(frozen=True)
class BuildStep:
    """What is built. ``context`` maps paths to contents, the ``Dockerfile`` among them.

    ``target`` is the stage to stop after; a file without a suffix is executable.
    """

    context: Mapping[str, bytes]
    arguments: Mapping[str, str]
    target: str = ""
    tag: str = ""


def build(
    client: DockerClient, step: BuildStep, log: BuildLog, cancel: threading.Event | None = None
) -> str:
    """Build ``step`` and return the id of the image, ``sha256:…``.

    Raises ``Untestable`` with the last telling lines when a command in it fails, ``HostError``
    when the cause is this machine, ``EngineLost`` when the engine stops answering, ``Cancelled``
    when ``cancel`` is set.
    """
    image = ""
    failure: Exception = _lost()
    try:
        with _response(client, step) as response, _closed_on(cancel, response):
            for line in response.iter_lines():
                event = json.loads(line or "{}")
                log.write(str(event.get("stream", "")))
                image = event.get("aux", {}).get("ID", image)
                if "error" in event:
                    log.end_line()
                    failure = _failure(str(event["error"]), log.tail)
                    log.write(f"{event['error']}\n")
                    image = ""
    except (requests.exceptions.RequestException, HTTPError, ValueError):
        image = ""
    if cancel is not None and cancel.is_set():
        raise Cancelled
    if not image:
        raise failure
    return image


@contextmanager
def _response(client: DockerClient, step: BuildStep) -> Iterator[requests.Response]:
    """The engine's answer to POST /build (docs.docker.com/reference/api/engine), as it comes.

    Not the SDK's own method: the answer must be at hand to be given up.
    """
    api = client.api
    parameters = {
        "buildargs": json.dumps(step.arguments),
        "networkmode": "host",  # packages come the way they come to this machine
        "rm": "true",
        "forcerm": "true",
        "target": step.target,
        "t": step.tag,
    }
    with api.post(
        f"{api.base_url}/v{api.api_version}/build",
        params={name: value for name, value in parameters.items() if value},
        data=_archive(step.context),
        headers={"Content-Type": "application/x-tar"},
        stream=True,
        timeout=None,
    ) as response:
        if response.status_code != 200:
            raise _failure(response.text, [])
        yield response


@contextmanager
def _closed_on(cancel: threading.Event | None, response: requests.Response) -> Iterator[None]:
    """Within the block, ``cancel`` ends the answer: the engine then gives the build up."""
    over = threading.Event()

    def watch() -> None:
        while cancel is not None and not over.wait(0.1):
            if cancel.is_set():
                with suppress(OSError, ValueError, RuntimeError):
                    response.raw.shutdown()  # wakes the thread that reads
                return

    watcher = threading.Thread(target=watch, name="build-cancel", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _archive(context: Mapping[str, bytes]) -> bytes:
    """The build context; no dates or owners, so that the same files are the same layers."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in sorted(context.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644 if PurePosixPath(name).suffix else 0o755
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _failure(error: str, tail: Iterable[str]) -> Untestable | HostError:
    """What it means that the engine gave up with ``error``, after a command printed ``tail``."""
    printed = "\n".join(tail)
    for line in (error, *printed.splitlines()):
        raise_host_fault(line)
    if not _FAILED_COMMAND.search(error):
        return HostError(f"The engine cannot build images: {one_line(error)}")
    said = UvResult(1, printed)
    if said.network_failed or _APT_NETWORK.search(printed):
        return HostError(
            f"No packages can be fetched inside the image build: {said.reason}. Folders and "
            "addresses of this machine are reached only by an engine on this machine."
        )
    return Untestable(SkipReason.BUILD_FAILED, one_line(f"{said.reason} ({error})", 600))


def _lost() -> EngineLost:
    return EngineLost("The engine stopped answering while it built an image.")
