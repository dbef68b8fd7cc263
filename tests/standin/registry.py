"""A container registry on the loopback interface: the real one, on temporary storage."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CREATED = "2026-11-20T00:00:00Z"
START_SECONDS = 20.0
# Relative addresses: an absolute one would lead clients of a proxy around it.
SETTINGS = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}}}
  cache: {{blobdescriptor: inmemory}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:0", relativeurls: true}}
"""


class RegistryUnavailable(Exception):
    """This host cannot run a registry; the text says why."""


@dataclass(frozen=True)
class Layer:
    """One layer of an image, as a gzipped tar."""

    data: bytes

    @cached_property
    def digest(self) -> str:
        """The digest of the compressed layer."""
        return digest_of(self.data)

    @cached_property
    def diff_id(self) -> str:
        """The digest of the tar inside."""
        return digest_of(gzip.decompress(self.data))


class LocalRegistry:
    """Serves images on 127.0.0.1 while its `with` block runs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(trust_env=False, timeout=60)
        self._pushed: set[tuple[str, str]] = set()
        self.host = ""
        """Address and port, as an image reference begins."""

    def __enter__(self) -> LocalRegistry:
        """Start serving; raises `RegistryUnavailable`."""
        program = shutil.which("docker-registry")
        if program is None:
            raise RegistryUnavailable("missing: docker-registry")
        self._directory = Path(tempfile.mkdtemp(prefix="vbisect-registry-"))
        settings, log = self._directory / "config.yml", self._directory / "log"
        settings.write_text(SETTINGS.format(root=self._directory / "data"))
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [program, "serve", str(settings)],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the tests; they end it in order
            )
        deadline = time.monotonic() + START_SECONDS
        # It took a free port by itself and tells which: none can be lost to somebody else.
        while not (found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text())):
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = log.read_text()
                self.__exit__(None, None, None)
                raise RegistryUnavailable(f"docker-registry did not start:\n{text}")
            time.sleep(0.02)
        self.host = found[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it and remove its storage."""
        assert self._process is not None
        self._client.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory)

    def push_image(
        self,
        repository: str,
        tags: Sequence[str],
        layers: Sequence[Layer],
        config: Mapping[str, Any],
        **platform: Any,
    ) -> str:
        """Push an image under each of `tags`; its digest.

        `config` is what an image's `Config` holds (Entrypoint, Labels, Env, …); `platform` are the
        fields beside it (created, architecture, os, history). Layers are uploaded once per
        repository.
        """
        step = {"created": platform.get("created", CREATED), "created_by": "standin"}
        blob = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "history": [step for _ in layers],
                **platform,
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            }
        ).encode()
        for digest, data in [*((x.digest, x.data) for x in layers), (digest_of(blob), blob)]:
            if (repository, digest) not in self._pushed:
                self._push_blob(repository, digest, data)
        described = [
            {"mediaType": LAYER_TYPE, "size": len(layer.data), "digest": layer.digest}
            for layer in layers
        ]
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": CONFIG_TYPE, "size": len(blob), "digest": digest_of(blob)},
                "layers": described,
            }
        ).encode()
        for tag in tags:
            self._call(
                "PUT",
                f"/v2/{repository}/manifests/{tag}",
                content=manifest,
                headers={"content-type": MANIFEST_TYPE},
            )
        return digest_of(manifest)

    def delete(self, repository: str, digest: str) -> None:
        """Delete an image, and with it all its tags."""
        self._call("DELETE", f"/v2/{repository}/manifests/{digest}")

    def tags(self, repository: str) -> set[str]:
        """The tags of a repository."""
        return set(self._call("GET", f"/v2/{repository}/tags/list").json()["tags"] or ())

    def _push_blob(self, repository: str, digest: str, data: bytes) -> None:
        upload = self._call("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
        where = httpx.URL(upload).copy_merge_params({"digest": digest})
        self._call("PUT", str(where), content=data)
        self._pushed.add((repository, digest))

    def _call(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._client.request(method, f"http://{self.host}{path}", **more).raise_for_status()


def digest_of(data: bytes) -> str:
    """The digest under which a registry has `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
