"""Registries are asked as they want to be asked, and nothing that they send is trusted."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import shutil
import ssl
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driving import Vbisect
from standin.running import wait
from standin.scripted import Asked, Reply, ScriptedServer
from vbisect.errors import HostError, UsageError
from vbisect.launch.port import free_port
from vbisect.registry import (
    ImageMissing,
    ImageReference,
    Patience,
    Registry,
    RemoteImage,
    RemoteLayer,
    TagsCutOff,
    hub_tags,
    is_loopback,
)
from vbisect.registry.allowance import allowance_in
from vbisect.registry.answer import Answer
from vbisect.registry.auth import Authenticator, challenges
from vbisect.registry.credentials import Credentials, credentials_for
from vbisect.registry.retry import asked_wait
from vbisect.registry.transport import Transport

Waits = list[tuple[str, float]]
QUICK = Patience(connect=2, read=2, attempts=3, first_wait=0.01)
PASSWORD = "correct-horse-battery"
TOKEN = "opaque.token-of.the-registry"
DIGEST = "sha256:" + "a" * 64
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


@pytest.fixture(autouse=True)
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Docker configuration without any login, in place of the user's own."""
    directory = tmp_path / "docker-config"
    directory.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(directory))
    monkeypatch.setenv("HOME", str(tmp_path))
    return directory / "config.json"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def logged_in(config: Path, host: str, username: str = "ada", password: str = PASSWORD) -> None:
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    config.write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def at(server: ScriptedServer, name: str = "team/vllm:v1") -> ImageReference:
    return ImageReference.parse(f"{server.host}/{name}")


# --- references


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "written"),
    [
        ("vllm/vllm-openai", "docker.io", "vllm/vllm-openai", None, "vllm/vllm-openai"),
        ("vllm/vllm-openai:v0.9", "docker.io", "vllm/vllm-openai", "v0.9", None),
        ("ubuntu:22.04", "docker.io", "library/ubuntu", "22.04", None),
        ("docker.io/ubuntu", "docker.io", "library/ubuntu", None, "ubuntu"),
        ("docker.io/library/ubuntu", "docker.io", "library/ubuntu", None, "ubuntu"),
        ("index.docker.io/vllm/x:t", "docker.io", "vllm/x", "t", "vllm/x:t"),
        ("ghcr.io/a/b/c:t", "ghcr.io", "a/b/c", "t", None),
        ("localhost/a", "localhost", "a", None, None),
        ("localhost:5000/a:t", "localhost:5000", "a", "t", None),
        ("host:5000/a", "host:5000", "a", None, None),
        ("[::1]:5000/a:t", "[::1]:5000", "a", "t", None),
        ("host/a", "docker.io", "host/a", None, None),
        ("a__b/c--d.e:_x", "docker.io", "a__b/c--d.e", "_x", None),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(
    text: str, registry: str, repository: str, tag: str | None, written: str | None
) -> None:
    found = ImageReference.parse(text)
    assert (found.registry, found.repository, found.tag) == (registry, repository, tag)
    assert str(found) == (written or text)
    assert ImageReference.parse(str(found)) == found


def test_a_digest_wins_over_a_tag() -> None:
    both = ImageReference.parse(f"vllm/vllm-openai:v1@{DIGEST}")
    assert both == ImageReference.parse("vllm/vllm-openai:v1").with_digest(DIGEST)
    assert (both.tag, both.digest, both.target) == (None, DIGEST, DIGEST)
    assert str(both) == f"vllm/vllm-openai@{DIGEST}"
    assert str(both.with_tag("v2")) == "vllm/vllm-openai:v2"
    assert ImageReference.parse("localhost:5000/a").name == "localhost:5000/a"
    assert ImageReference.parse("a").target == "latest"


@pytest.mark.parametrize(
    "text",
    [
        *("", "UPPER/case", "a:", "a@", "a@sha256:12", "https://ghcr.io/a", "a b", "a//b", "-x"),
        *("a/", "host:port/a", "a..b", "x:" + "t" * 129, "a:t\n", "a\n", "h_st.x/a", ":5000/a"),
        *("a/../b", "a" * 300),
    ],
)
def test_what_is_no_reference_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        ImageReference.parse(text)
    assert "is no image reference" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        found = ImageReference.parse(text)
    except UsageError:
        return
    assert ImageReference.parse(str(found)) == found


def test_tags_and_digests_that_are_none_are_refused() -> None:
    image = ImageReference.parse("vllm/vllm-openai")
    with pytest.raises(UsageError, match="a tag is"):
        image.with_tag("a/b")
    with pytest.raises(UsageError, match="a digest is"):
        image.with_digest("sha256:xyz")


def test_loopback_is_known_by_address() -> None:
    ours = ["127.0.0.1:5000", "127.8.9.1", "localhost:5000", "localhost", "[::1]:5000"]
    others = ["docker.io", "128.0.0.1:5000", "localhost.example.com", "127.0.0.1.example.com", ""]
    assert all(map(is_loopback, ours))
    assert not any(map(is_loopback, others))


# --- a real registry


def installed(program: str) -> str:
    """The path of `program`; skips the test without it, except where everything must be tested."""
    path = shutil.which(program)
    if path is None:
        if os.environ.get("VBISECT_CI"):
            pytest.fail(f"{program} is not installed, and VBISECT_CI is set")
        pytest.skip(f"{program} is not installed")
    return path


@pytest.fixture(scope="module")
def registry_program() -> str:
    return installed("docker-registry")


@contextmanager
def running_registry(
    program: str,
    directory: Path,
    tls: Mapping[str, object],
    own: tuple[Path, Path] | None = None,
) -> Iterator[str]:
    """HOST:PORT of a docker-registry with its storage below `directory`.

    `own` is a certificate that it takes, and the key.
    """
    host = f"127.0.0.1:{free_port()}"
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}},
        "http": {"addr": host, **({"tls": tls} if tls else {})},
    }
    path = directory / "config.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    with (directory / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", str(path)], stdout=log, stderr=log)
    try:
        scheme = "https" if tls else "http"
        _wait_for(f"{scheme}://{host}/v2/", process, directory / "log", own)
        yield host
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(
    address: str, process: subprocess.Popen[bytes], log: Path, own: tuple[Path, Path] | None
) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if own:
        context.load_cert_chain(*own)
    for _ in range(200):
        try:
            httpx.get(address, trust_env=False, verify=context)
            return
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
    raise AssertionError(f"docker-registry does not answer: {log.read_text()}")


class Pushed:
    """Pushes what tests need into the registry at `host`, by its own interface."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.client = httpx.Client(base_url=f"http://{host}", trust_env=False)

    def blob(self, repository: str, content: bytes) -> dict[str, Any]:
        digest = digest_of(content)
        begun = self.client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
        target = httpx.URL(begun.headers["location"]).copy_merge_params({"digest": digest})
        self.client.put(target, content=content).raise_for_status()
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}

    def manifest(self, repository: str, tag: str, kind: str, body: dict[str, Any]) -> str:
        content = json.dumps({"schemaVersion": 2, "mediaType": kind, **body}).encode()
        self.client.put(
            f"/v2/{repository}/manifests/{tag}", content=content, headers={"Content-Type": kind}
        ).raise_for_status()
        return digest_of(content)

    def image(self, repository: str, tag: str, architecture: str = "amd64", **config: Any) -> str:
        """Push an image of two small layers; returns its digest."""
        contents = [f"{repository} {architecture} {n}".encode() * n for n in (20, 3)]
        layers = [self.blob(repository, content) for content in contents]
        document = {
            "os": "linux",
            "architecture": architecture,
            "created": "2025-03-04T05:06:07.123456789Z",
            "config": {"Labels": {"a": "b"}, "Entrypoint": ["vllm", "serve"], **config},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(b"raw" + c) for c in contents]},
        }
        blob = self.blob(repository, json.dumps(document).encode())
        return self.manifest(repository, tag, MANIFEST_TYPE, {"config": blob, "layers": layers})


@pytest.fixture(scope="module")
def pushed(registry_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    directory = tmp_path_factory.mktemp("registry")
    with running_registry(registry_program, directory, {}) as host:
        pushed = Pushed(host)
        yield pushed
        pushed.client.close()


def test_a_tag_is_resolved_to_the_digest_of_its_manifest(pushed: Pushed) -> None:
    digest = pushed.image("team/one", "v1")
    image = ImageReference.parse(f"{pushed.host}/team/one:v1")
    with Registry() as registry:
        assert registry.digest(image) == digest
        assert registry.digest(image.with_digest(digest)) == digest
        assert registry.digest(image.with_tag("v2")) is None
        assert registry.digest(ImageReference.parse(f"{pushed.host}/team/none:v1")) is None
        pushed.image("team/one", "v1", Labels={"a": "c"})
        assert registry.digest(image) not in (None, digest)


def test_an_image_is_described_without_pulling_it(pushed: Pushed) -> None:
    digest = pushed.image("team/described", "v1")
    asked = ImageReference.parse(f"{pushed.host}/team/described:v1")
    with Registry() as registry:
        image = registry.image(asked)
        assert image == registry.image(asked.with_digest(digest)).model_copy(
            update={"reference": str(asked)}
        )
    contents = [b"team/described amd64 20" * 20, b"team/described amd64 3" * 3]
    assert image.reference == str(asked)
    assert image.digest == digest
    assert [layer.digest for layer in image.layers] == [digest_of(c) for c in contents]
    assert [layer.size for layer in image.layers] == [len(c) for c in contents]
    assert image.size == sum(map(len, contents))
    assert image.diff_ids == tuple(digest_of(b"raw" + c) for c in contents)
    assert image.created == datetime(2025, 3, 4, 5, 6, 7, 123456, tzinfo=UTC)
    assert image.labels == {"a": "b"}
    assert image.entrypoint == ("vllm", "serve")
    assert image.commit is None


def test_an_index_is_resolved_for_the_platform(pushed: Pushed) -> None:
    client, entries = pushed.client, []
    for architecture in ("arm64", "amd64"):
        digest = pushed.image("team/both", architecture, architecture)
        size = len(client.get(f"/v2/team/both/manifests/{digest}").content)
        platform = {"os": "linux", "architecture": architecture}
        entries.append(
            {"mediaType": MANIFEST_TYPE, "digest": digest, "size": size, "platform": platform}
        )
    entries[0]["platform"]["variant"] = "v8"
    index = pushed.manifest("team/both", "v1", INDEX_TYPE, {"manifests": entries})
    asked = ImageReference.parse(f"{pushed.host}/team/both:v1")
    with Registry() as registry:
        assert registry.digest(asked) == index
        for platform, content in [
            ("linux/amd64", b"team/both amd64 20" * 20),
            ("linux/arm64", b"team/both arm64 20" * 20),
            ("linux/arm64/v8", b"team/both arm64 20" * 20),
        ]:
            image = registry.image(asked, platform)
            assert image.digest == index
            assert image.layers[0].digest == digest_of(content)
        with pytest.raises(ImageMissing, match=r"no image for linux/s390x, only .*linux/arm64"):
            registry.image(asked, "linux/s390x")
        with pytest.raises(ImageMissing, match=r"only for linux/arm64"):
            registry.image(asked.with_tag("arm64"))


def test_what_a_registry_does_not_have_is_missing(pushed: Pushed) -> None:
    pushed.image("team/few", "v1")
    with Registry() as registry:
        with pytest.raises(ImageMissing, match=r"has no .*/team/few:v9"):
            registry.image(ImageReference.parse(f"{pushed.host}/team/few:v9"))
        with pytest.raises(ImageMissing, match="team/none"):
            registry.tags(ImageReference.parse(f"{pushed.host}/team/none"))


def test_a_repository_is_missing_only_where_a_registry_says_so(
    pushed: Pushed, server: ScriptedServer
) -> None:
    pushed.image("team/there", "v1")
    unknown = {"errors": [{"code": "NAME_UNKNOWN", "message": "repository name not known"}]}
    path = "/v2/team/vllm/tags/list"
    with Registry(patience=QUICK) as registry:
        assert registry.has(ImageReference.parse(f"{pushed.host}/team/there"))
        assert not registry.has(ImageReference.parse(f"{pushed.host}/team/none:v1"))
        others: list[Reply] = [Reply(404, "<html>"), Reply(404, {"errors": 3}), Reply(405)]
        for other in (*others, Reply(403, unknown)):
            server.on(path, other)
            assert registry.has(at(server))
        server.on(path, Reply(404, unknown))
        assert not registry.has(at(server))


def test_every_tag_is_listed(pushed: Pushed) -> None:
    for tag in ("v0.9.0", "nightly", "v0.10.0"):
        pushed.image("team/tags", tag)
    with Registry() as registry:
        tags = registry.tags(ImageReference.parse(f"{pushed.host}/team/tags"))
    assert sorted(tags) == ["nightly", "v0.10.0", "v0.9.0"]


def test_loopback_is_asked_without_the_proxy(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = pushed.image("team/direct", "v1")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Registry(patience=QUICK) as registry:
        assert registry.digest(ImageReference.parse(f"{pushed.host}/team/direct:v1")) == digest


@dataclass(frozen=True)
class Authority:
    """A certificate authority of somebody's own, with its files in `folder`."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1, and its key."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        signed = ("-CA", self.certificate, "-CAkey", self.folder / "ca-key.pem")
        usage = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:false")
        _certify(f"/CN={name}", certificate, key, *signed, *usage)
        return certificate, key


def _certify(subject: str, certificate: Path, key: Path, *more: str | Path) -> None:
    subprocess.run(
        [
            *(installed("openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-subj", subject),
            *("-keyout", key, "-out", certificate, *more),
        ],
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    _certify("/CN=authority", made.certificate, made.folder / "ca-key.pem")
    return made


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the user's own certificates of registries are; there are none."""
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path / ".config"


def ask_strictly(reference: ImageReference) -> tuple[str | None, Waits]:
    """As of a registry that is not insecure."""
    waits: Waits = []
    on_wait: Callable[[str, float], None] = lambda *wait: waits.append(wait)  # noqa: E731
    with Registry(plain_http=lambda _: False, on_wait=on_wait, patience=QUICK) as registry:
        try:
            return registry.digest(reference), waits
        except HostError as error:
            assert waits == [], "no repetition changes it"
            raise error


@pytest.mark.parametrize("engine_name", ["docker", "containers"])
def test_a_registry_is_trusted_by_the_authority_that_the_engine_has_for_it(
    engine_name: str,
    registry_program: str,
    authority: Authority,
    strangers: Path,
    tmp_path: Path,
) -> None:
    certificate, key = authority.issue("registry")
    tls = {"certificate": str(certificate), "key": str(key)}
    with running_registry(registry_program, tmp_path, tls) as host:
        asked = ImageReference.parse(f"{host}/team/a:v1")
        with pytest.raises(HostError, match=rf"certificate.*/etc/docker/certs\.d/{host},"):
            ask_strictly(asked)
        with Registry() as registry:
            assert registry.digest(asked) is None, "this one is insecure"
        folder = strangers / engine_name / "certs.d" / host
        folder.mkdir(parents=True)
        shutil.copy(authority.certificate, folder / "ca.crt")
        assert ask_strictly(asked) == (None, [])
        (folder / "ca.crt").write_text("no certificate")
        with pytest.raises(HostError, match=r"certs\.d/.*/ca\.crt cannot be used for"):
            ask_strictly(asked)


def test_a_registry_may_want_a_certificate_of_ours(
    registry_program: str, authority: Authority, strangers: Path, tmp_path: Path
) -> None:
    certificate, key = authority.issue("registry")
    tls = {"certificate": str(certificate), "key": str(key)}
    wanted = {**tls, "clientcas": [str(authority.certificate)]}
    with running_registry(registry_program, tmp_path, wanted, authority.issue("test")) as host:
        asked = ImageReference.parse(f"{host}/team/a:v1")
        folder = strangers / "docker" / "certs.d" / host
        folder.mkdir(parents=True)
        shutil.copy(authority.certificate, folder / "ca.crt")
        with pytest.raises(HostError, match=r"certs\.d"):
            ask_strictly(asked)
        for path, name in zip(authority.issue("user"), ("a.cert", "a.key"), strict=True):
            shutil.copy(path, folder / name)
        assert ask_strictly(asked) == (None, [])


def test_https_is_not_given_up_for_a_registry_that_is_not_insecure(server: ScriptedServer) -> None:
    server.on("/v2/team/vllm/manifests/v1", Reply(headers={"Docker-Content-Digest": DIGEST}))
    with pytest.raises(HostError, match=r"without TLS, as plain HTTP .*insecure-registries"):
        ask_strictly(at(server))
    assert server.requests == []
    with Registry() as registry:
        assert registry.digest(at(server)) == DIGEST


# --- who asks


def guard(server: ScriptedServer, repository: str = "team/vllm", **token: Any) -> None:
    """Let `server` answer for `repository` only to the token that it gives to Ada."""
    challenge = f'Bearer realm="{server.url}/token",service="scripted",scope="repository:x:pull"'

    def manifest(asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return Reply(401, headers={"WWW-Authenticate": challenge})
        return Reply(headers={"Docker-Content-Digest": DIGEST})

    def give(asked: Asked) -> Reply:
        right = Credentials("ada", PASSWORD).basic
        if asked.headers.get("authorization") != right:
            return Reply(401, {"errors": [{"code": "UNAUTHORIZED"}]})
        return Reply(body={"token": TOKEN, **token})

    server.on(f"/v2/{repository}/manifests/v1", manifest)
    server.on("/token", give)


def test_a_token_is_fetched_once_for_each_repository(
    server: ScriptedServer, docker_config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    guard(server, "team/vllm", expires_in=300)
    guard(server, "team/other", expires_in=300)
    logged_in(docker_config, server.host)
    with Registry() as registry:
        for _ in range(3):
            assert registry.digest(at(server)) == DIGEST
        assert registry.digest(at(server, "team/other:v1")) == DIGEST
    asked = [request.query for request in server.asked("/token")]
    assert [query["scope"] for query in asked] == [
        "repository:team/vllm:pull",
        "repository:team/other:pull",
    ]
    assert {query["service"] for query in asked} == {"scripted"}
    assert len(server.asked("/v2/team/vllm/manifests/v1")) == 4
    assert not secrets_in(caplog.text)


def test_a_token_that_has_expired_is_fetched_again(
    server: ScriptedServer, docker_config: Path
) -> None:
    guard(server, expires_in=0)
    logged_in(docker_config, server.host)
    with Registry() as registry:
        assert registry.digest(at(server)) == registry.digest(at(server)) == DIGEST
    assert len(server.asked("/token")) == 2


def test_a_token_that_the_registry_no_longer_takes_is_fetched_again(
    server: ScriptedServer,
) -> None:
    tokens = iter(["first", "second"])
    good = ["first"]
    server.on("/token", lambda asked: Reply(body={"access_token": next(tokens)}))
    challenge = {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'}
    server.on(
        "/v2/team/vllm/manifests/v1",
        lambda asked: (
            Reply(headers={"Docker-Content-Digest": DIGEST})
            if asked.headers.get("authorization") == f"Bearer {good[0]}"
            else Reply(401, headers=challenge)
        ),
    )
    with Registry() as registry:
        assert registry.digest(at(server)) == DIGEST
        good[0] = "second"
        assert registry.digest(at(server)) == DIGEST


def test_threads_share_a_token(server: ScriptedServer, docker_config: Path) -> None:
    guard(server)
    logged_in(docker_config, server.host)
    with Registry() as registry, ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda _: registry.digest(at(server)), range(16)))
    assert digests == [DIGEST] * 16
    assert len(server.asked("/token")) == 1


def test_an_identity_token_is_exchanged_for_a_token(
    server: ScriptedServer, docker_config: Path
) -> None:
    guard(server)
    server.on("/token", Reply(body={"access_token": TOKEN}))
    entry = {"auth": base64.b64encode(b"00:").decode(), "identitytoken": PASSWORD}
    docker_config.write_text(json.dumps({"auths": {server.host: entry}}))
    with Registry() as registry:
        assert registry.digest(at(server)) == DIGEST
    [asked] = server.asked("/token")
    form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
    assert asked.method == "POST"
    assert form["grant_type"] == "refresh_token"
    assert form["refresh_token"] == PASSWORD
    assert form["scope"] == "repository:team/vllm:pull"


def test_an_identity_token_is_not_sent_on_to_another_host(
    server: ScriptedServer, docker_config: Path
) -> None:
    guard(server)
    docker_config.write_text(json.dumps({"auths": {server.host: {"identitytoken": PASSWORD}}}))
    with ScriptedServer() as elsewhere:
        server.on("/token", Reply(307, headers={"Location": f"{elsewhere.url}/token"}))
        elsewhere.on("/token", Reply(body={"token": TOKEN}))
        with Registry() as registry, pytest.raises(HostError, match="not with a token"):
            registry.digest(at(server))
        assert elsewhere.requests == []


def test_a_registry_may_ask_for_the_login_itself(
    server: ScriptedServer, docker_config: Path
) -> None:
    right = Credentials("ada", PASSWORD).basic
    server.on(
        "/v2/team/vllm/manifests/v1",
        lambda asked: (
            Reply(headers={"Docker-Content-Digest": DIGEST})
            if asked.headers.get("authorization") == right
            else Reply(401, headers={"WWW-Authenticate": 'Basic realm="here, there"'})
        ),
    )
    with (
        Registry() as registry,
        pytest.raises(HostError, match="Docker's configuration gives none"),
    ):
        registry.digest(at(server))
    logged_in(docker_config, server.host, password="wrong")
    with Registry() as registry, pytest.raises(HostError, match="does not let your login read"):
        registry.digest(at(server))
    logged_in(docker_config, server.host)
    with Registry() as registry:
        assert registry.digest(at(server)) == registry.digest(at(server)) == DIGEST
    assert len(server.requests) == 6


HELPER = """#!/bin/sh
read host
if [ "$1 $host" != "get {host}" ]; then
    echo "credentials not found in native keychain"
    exit 1
fi
echo '{{"ServerURL": "{host}", "Username": "{username}", "Secret": "{secret}"}}'
"""


def install_helper(
    docker_config: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    if script is not None:
        program = docker_config.parent / "docker-credential-standin"
        program.write_text(script)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    docker_config.write_text(json.dumps({"credsStore": "standin"}))


def test_a_credential_helper_is_asked(
    server: ScriptedServer, docker_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard(server)
    script = HELPER.format(host=server.host, username="ada", secret=PASSWORD)
    install_helper(docker_config, monkeypatch, script)
    with Registry() as registry:
        assert registry.digest(at(server)) == DIGEST
    assert credentials_for("ghcr.io") is None
    script = HELPER.format(host=server.host, username="<token>", secret=PASSWORD)
    install_helper(docker_config, monkeypatch, script)
    assert credentials_for(server.host) == Credentials(identity_token=PASSWORD)


NO_WORKING_HELPERS = [
    (None, "docker-credential-standin, which Docker's configuration names, is not in PATH"),
    ("#!/nowhere/sh\n", "docker-credential-standin cannot be run: No such file or directory"),
    ("#!/bin/sh\necho no\n", "docker-credential-standin answered, but not with a login"),
    ("#!/bin/sh\nexit 3\n", "docker-credential-standin failed: exit status 3"),
    (
        "#!/bin/sh\necho 'the vault is locked'; echo 'open it' >&2; exit 1\n",
        "docker-credential-standin failed: the vault is locked open it",
    ),
    ("#!/bin/sh\nexec yes 'a\033[2J'\n", "docker-credential-standin failed: a a a"),
    (
        f'#!/bin/sh\necho \'{{"Username": 3, "Secret": "{PASSWORD}"}}\'; exit 1\n',
        "docker-credential-standin failed: exit status 1",
    ),
]


@pytest.mark.parametrize(("script", "said"), NO_WORKING_HELPERS)
def test_without_a_working_helper_one_is_nobody_and_told_why(
    script: str | None,
    said: str,
    server: ScriptedServer,
    docker_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Told where that matters: most images need no login."""
    install_helper(docker_config, monkeypatch, script)
    guard(server)
    with Registry() as registry, pytest.raises(HostError) as refused:
        registry.digest(at(server))
    assert f"`docker login {server.host}` ({said}" in str(refused.value)
    assert len(str(refused.value)) < 700
    assert not secrets_in(shown(refused.value))
    server.on("/token", Reply(body={"token": TOKEN}))
    with Registry() as registry:
        assert registry.digest(at(server)) == DIGEST
    assert all("authorization" not in asked.headers for asked in server.asked("/token"))
    assert not recwarn.list


def test_a_helper_that_hangs_is_ended_with_all_it_started_and_then_left_alone(
    server: ScriptedServer, docker_config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    install_helper(
        docker_config,
        monkeypatch,
        f"#!/bin/sh\nsleep 1000 & echo $! >>{started}\nwait\n",
    )
    monkeypatch.setattr("vbisect.registry.credential_helper._SECONDS", 2)
    guard(server)
    with Registry() as registry, pytest.raises(HostError, match="gave no answer within 2 s"):
        registry.digest(at(server))
    [child] = started.read_text().split()
    assert wait(lambda: not psutil.pid_exists(int(child)) or is_zombie(int(child)), 10)


def is_zombie(pid: int) -> bool:
    """Whether it has ended and nobody has asked how."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_command_names_the_helper_that_failed(
    server: ScriptedServer,
    docker_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    vbisect: Vbisect,
) -> None:
    script = "#!/bin/sh\necho 'the vault is locked'; exit 1\n"
    install_helper(docker_config, monkeypatch, script)
    guard(server)
    server.on("/v2/team/vllm/tags/list", server._scripts["/v2/team/vllm/manifests/v1"][0])
    words = ("versions", "--from", "0.33.0", "--image-repo", f"{server.host}/team/vllm")
    settings = {"DOCKER_CONFIG": str(docker_config.parent), "PATH": os.environ["PATH"]}
    done = vbisect(*words, **settings)
    assert done.returncode == 4
    assert "(docker-credential-standin failed: the vault is locked)" in done.stderr
    missing = vbisect(*words[:-1], f"{server.host}/no/such", **settings)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert f"--image-repo {server.host}/no/such" in missing.stderr


def test_a_login_is_handed_to_an_engine_as_it_takes_it() -> None:
    for credentials, entry in [
        (Credentials("ada", PASSWORD), {"username": "ada", "password": PASSWORD}),
        (Credentials(identity_token=TOKEN), {"identitytoken": TOKEN}),
    ]:
        assert credentials.for_engine("ghcr.io") == {**entry, "serveraddress": "ghcr.io"}


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"x": {"auth": "%"}}}', '{"auths": 3}'])
def test_a_broken_docker_configuration_is_none(text: str, docker_config: Path) -> None:
    docker_config.write_text(text)
    assert credentials_for("ghcr.io") is None


def test_docker_hub_goes_by_its_old_address(docker_config: Path) -> None:
    logged_in(docker_config, "https://index.docker.io/v1/")
    assert credentials_for("docker.io") == Credentials("ada", PASSWORD)
    assert credentials_for("ghcr.io") is None


def secrets_in(text: str) -> list[str]:
    encoded = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
    return [secret for secret in (PASSWORD, TOKEN, encoded) if secret in text]


def shown(error: BaseException) -> str:
    return f"{error} {error!r} {''.join(traceback.format_exception(error))}"


def echo(asked: Asked) -> str:
    return f"{asked.headers.get('authorization', '')} {asked.body.decode()}"


@pytest.mark.parametrize(
    "hostile",
    [
        lambda asked: Reply(400, echo(asked)),
        lambda asked: Reply(403, {"errors": [{"code": "DENIED", "message": echo(asked)}]}),
        lambda asked: Reply(500, echo(asked)),
        lambda asked: Reply(200, echo(asked)),
        lambda asked: Reply(302, headers={"Location": f"gopher://x/{echo(asked)}"}),
        lambda asked: Reply(302, headers={"Location": f"http://[{echo(asked)}"}),
        lambda asked: Reply(200, headers={"Docker-Content-Digest": echo(asked)}),
        lambda asked: Reply(raw=f"{echo(asked)}\r\n\r\n".encode()),
        lambda asked: Reply(raw=f"HTTP/1.1 200 OK\r\n{echo(asked)}\r\n\r\n".encode()),
        lambda asked: Reply(200, echo(asked), {"Content-Encoding": "gzip"}),
    ],
)
@pytest.mark.parametrize("path", ["/v2/team/vllm/manifests/v1", "/token"])
def test_no_secret_is_shown_even_if_a_server_sends_it_back(
    path: str,
    hostile: Callable[[Asked], Reply],
    server: ScriptedServer,
    docker_config: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard(server)
    logged_in(docker_config, server.host)
    challenge = {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'}
    refusing = Reply(401, headers=challenge)
    server.on(path, *([] if path == "/token" else [refusing]), hostile)
    waits: list[str] = []
    registry = Registry(patience=QUICK, on_wait=lambda message, seconds: waits.append(message))
    with registry, pytest.raises(HostError) as caught:
        registry.image(at(server))
    assert any(secrets_in(echo(asked)) for asked in server.asked(path)), "nothing was at stake"
    assert "\n" not in str(caught.value)
    assert not secrets_in(shown(caught.value))
    assert not secrets_in(repr(vars(registry)) + " ".join(waits) + caplog.text)


@pytest.mark.parametrize("token", ["a b", "a\r\nX-Injected: 1", "é", ""])
def test_a_token_that_is_none_is_not_sent(token: str, server: ScriptedServer) -> None:
    guard(server)
    server.on("/token", Reply(body={"token": token}))
    with Registry() as registry, pytest.raises(HostError, match="not with a token"):
        registry.digest(at(server))
    assert len(server.asked("/v2/team/vllm/manifests/v1")) == 1


def test_a_refused_login_says_what_to_type(server: ScriptedServer, docker_config: Path) -> None:
    guard(server)
    logged_in(docker_config, server.host, password="outdated")
    with Registry() as registry, pytest.raises(HostError) as caught:
        registry.digest(at(server))
    assert f"`docker login {server.host}`" in str(caught.value)
    assert "outdated" not in shown(caught.value)


def test_a_login_is_not_sent_without_encryption(
    server: ScriptedServer, docker_config: Path
) -> None:
    logged_in(docker_config, "registry.example.com")
    headers = httpx.Headers({"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})
    transport = Transport(is_loopback, None, QUICK)
    authenticator = Authenticator(transport, lambda host: False)
    with pytest.raises(HostError, match="only https"):
        authenticator.answer(Answer(401, headers, b""), "registry.example.com", "team/vllm", None)
    assert server.requests == []
    transport.close()


def test_every_way_of_writing_a_challenge_is_read() -> None:
    two = 'Basic realm="a, b", Bearer realm="https://x/t?a=b",service=s, scope="r:x:pull,push"'
    bearer = {"realm": "https://x/t?a=b", "service": "s", "scope": "r:x:pull,push"}
    assert challenges([two]) == {"basic": {"realm": "a, b"}, "bearer": bearer}
    assert challenges(["Negotiate", 'BEARER Realm = "a\\"b"']) == {
        "negotiate": {},
        "bearer": {"realm": 'a"b'},
    }
    assert challenges(["", '"', "=", 'realm="x"']) == {}
    started = time.monotonic()
    challenges(['a="' * 20_000, "a " * 20_000, "a" * 60_000, 'a="\\' * 20_000])
    assert time.monotonic() - started < 20


# --- content from elsewhere


def serve_image(server: ScriptedServer, config: Reply | None = None, **manifest: Any) -> bytes:
    document = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [DIGEST]}}
    ).encode()
    config_digest = digest_of(document)
    body = {
        "config": {"digest": config_digest, "size": len(document)},
        "layers": [{"digest": DIGEST, "size": 5}],
        **manifest,
    }
    server.on("/v2/team/vllm/manifests/v1", Reply(body=body))
    server.on(f"/v2/team/vllm/blobs/{config_digest}", config or Reply(body=document))
    return document


def test_a_blob_may_lie_on_another_host_which_learns_no_token(
    server: ScriptedServer, docker_config: Path
) -> None:
    guard(server)
    logged_in(docker_config, server.host)
    with ScriptedServer() as elsewhere:
        moved = Reply(307, headers={"Location": f"{elsewhere.url}/store/config?signature=1"})
        document = serve_image(server, moved)
        manifest = server._scripts["/v2/team/vllm/manifests/v1"][0]
        challenge = {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'}
        server.on("/v2/team/vllm/manifests/v1", Reply(401, headers=challenge), manifest)
        elsewhere.on("/store/config", Reply(body=document))
        with Registry() as registry:
            assert registry.image(at(server)).diff_ids == (DIGEST,)
        [blob] = [asked for asked in server.requests if "/blobs/" in asked.path]
        assert blob.headers["authorization"] == f"Bearer {TOKEN}"
        [taken] = elsewhere.requests
        assert "authorization" not in taken.headers


def test_another_host_cannot_ask_for_the_login(server: ScriptedServer, docker_config: Path) -> None:
    logged_in(docker_config, server.host)
    with ScriptedServer() as elsewhere:
        moved = Reply(307, headers={"Location": f"{elsewhere.url}/store"})
        server.on("/v2/team/vllm/manifests/v1", moved)
        for challenge in ("Basic", f'Bearer realm="{elsewhere.url}/token"'):
            elsewhere.on("/store", Reply(401, headers={"WWW-Authenticate": challenge}))
            with Registry() as registry, pytest.raises(HostError):
                registry.image(at(server))
        assert all("authorization" not in asked.headers for asked in elsewhere.requests)
        assert elsewhere.asked("/token") == []


@pytest.mark.parametrize(
    "manifest",
    [
        Reply(body="<html>Welcome to your hotel</html>"),
        Reply(body=b"\xff\xfe"),
        Reply(body="[" * 5000),
        Reply(body={}),
        Reply(body={"manifests": [], "layers": []}),
        Reply(body={"config": {"digest": "../../x", "size": 1}, "layers": []}),
        Reply(body={"config": {"digest": DIGEST, "size": -1}, "layers": []}),
        Reply(body={"schemaVersion": 1, "fsLayers": [], "history": []}),
        Reply(body={}, headers={"Docker-Content-Digest": DIGEST}),
        Reply(body={}, headers={"Docker-Content-Digest": "md5:1"}),
    ],
)
def test_a_manifest_that_is_none_is_an_error(manifest: Reply, server: ScriptedServer) -> None:
    server.on("/v2/team/vllm/manifests/v1", manifest)
    with Registry() as registry, pytest.raises((HostError, ImageMissing)) as caught:
        registry.image(at(server))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_content_must_have_the_digest_it_was_asked_for_by(server: ScriptedServer) -> None:
    document = serve_image(server)
    with Registry() as registry:
        assert registry.image(at(server)).layers == (RemoteLayer(digest=DIGEST, size=5),)
        serve_image(server, Reply(body=document + b" "))
        with pytest.raises(HostError, match="has its digest"):
            registry.image(at(server))
        serve_image(server, layers=[])
        with pytest.raises(HostError, match="fits it"):
            registry.image(at(server))


def test_without_the_header_the_digest_is_computed(server: ScriptedServer) -> None:
    server.on("/v2/team/vllm/manifests/v1", Reply(body=b"manifest"))
    with Registry() as registry:
        assert registry.digest(at(server)) == digest_of(b"manifest")
        assert [asked.method for asked in server.requests] == ["HEAD", "GET"]
        assert "index" in server.requests[0].headers["accept"]
        server.on("/v2/team/vllm/manifests/v1", Reply(headers={"Docker-Content-Digest": "x"}))
        with pytest.raises(HostError, match="not with a digest"):
            registry.digest(at(server))


def test_pages_of_tags_are_followed_on_the_same_registry(
    server: ScriptedServer, docker_config: Path
) -> None:
    path = "/v2/team/vllm/tags/list"
    server.on(
        path,
        Reply(body={"tags": ["a", "b"]}, headers={"Link": f'<{path}?last=b&n=2>; rel="next"'}),
        Reply(
            body={"tags": ["b", "c\n", "../d"]}, headers={"Link": "<http://x/?last=c>; rel=next"}
        ),
        Reply(body={"tags": None}),
    )
    with Registry() as registry:
        assert registry.tags(at(server)) == ("a", "b")
    assert [asked.query for asked in server.requests] == [
        {},
        {"last": "b", "n": "2"},
        {"last": "c"},
    ]


def test_a_list_of_tags_without_end_is_no_answer(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vbisect.registry.client._MOST_PAGES", 5)
    path = "/v2/team/vllm/tags/list"
    server.on(path, Reply(body={"tags": ["a"]}, headers={"Link": "<http://[x?last=a>; rel=next"}))
    with Registry() as registry, pytest.raises(HostError, match="that ends"):
        registry.tags(at(server))
    assert len(server.requests) == 5


def test_an_answer_of_any_size_is_not_read(server: ScriptedServer) -> None:
    server.on("/v2/team/vllm/tags/list", Reply(body=b" " * 17_000_000 + b'{"tags": []}'))
    with Registry() as registry, pytest.raises(HostError, match="sensible size"):
        registry.tags(at(server))


def test_the_commit_is_known_by_labels() -> None:
    layer = RemoteLayer(digest=DIGEST, size=7)

    def image(**labels: str) -> RemoteImage:
        return RemoteImage(
            reference="x",
            digest=DIGEST,
            layers=(layer, layer),
            diff_ids=(DIGEST, DIGEST),
            created=None,
            labels={name.replace("_", "."): value for name, value in labels.items()},
            entrypoint=(),
        )

    assert image(org_opencontainers_image_revision="ABCDEF0").commit == "abcdef0"
    assert image(org_opencontainers_image_revision="main").commit is None
    inherited = image(org_opencontainers_image_revision="a" * 40, ai_vllm_build_commit="b" * 40)
    assert inherited.commit == "b" * 40


def test_a_layer_that_occurs_twice_is_downloaded_once() -> None:
    layers = tuple(RemoteLayer(digest=digest, size=7) for digest in ("a", "b", "a"))
    image = RemoteImage(
        reference="x",
        digest=DIGEST,
        layers=layers,
        diff_ids=("a", "b", "a"),
        created=None,
        labels={},
        entrypoint=(),
    )
    assert image.size == 14


# --- patience


def ask_slowly(server: ScriptedServer, patience: Patience = QUICK) -> tuple[str | None, Waits]:
    waits: Waits = []
    on_wait: Callable[[str, float], None] = lambda *wait: waits.append(wait)  # noqa: E731
    with Registry(on_wait=on_wait, patience=patience) as registry:
        return registry.digest(at(server)), waits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Retry-After", lambda: "1"),
        ("X-Retry-After", lambda: str(int(time.time()) + 2)),
        ("ratelimit-remaining", lambda: "0;w=1"),
    ],
)
def test_a_wait_is_as_long_as_the_registry_asks(
    name: str, value: Callable[[], str], server: ScriptedServer
) -> None:
    good = Reply(headers={"Docker-Content-Digest": DIGEST})
    server.on("/v2/team/vllm/manifests/v1", lambda _: Reply(429, headers={name: value()}), good)
    started = time.monotonic()
    digest, [(message, seconds)] = ask_slowly(server)
    assert digest == DIGEST
    assert 0.9 < seconds <= 2.1
    assert time.monotonic() - started >= seconds
    assert message == f"{server.host}: answers 429 Too Many Requests; asking again"


NOW = 1_762_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": format_datetime(datetime.fromtimestamp(NOW + 90, UTC), True)}, 90),
        ({"Retry-After": format_datetime(datetime.fromtimestamp(NOW - 90, UTC), True)}, 0),
        ({"Retry-After": str(int(NOW) + 60)}, 60),
        ({"X-Retry-After": str(int(NOW) + 60)}, 60),
        ({"X-Retry-After": str(int(NOW) + 60), "Retry-After": "5"}, 60),
        ({"ratelimit-remaining": "0;w=21600"}, 21600),
        ({"ratelimit-remaining": "0;w=21600", "Retry-After": "5"}, 5),
        ({"ratelimit-remaining": "3;w=21600"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "9" * 5000}, 0),
        ({}, 0),
    ],
)
def test_every_way_of_asking_for_a_wait_is_understood(
    headers: dict[str, str], seconds: float
) -> None:
    date = format_datetime(datetime.fromtimestamp(NOW, UTC), True)
    assert asked_wait(Answer(429, httpx.Headers({"Date": date, **headers}), b"")) == seconds


def test_pulls_that_are_used_up_matter_only_where_one_was_refused() -> None:
    headers = httpx.Headers({"ratelimit-remaining": "0;w=21600"})
    assert asked_wait(Answer(503, headers, b"")) == 0


def test_hours_are_not_waited_for(server: ScriptedServer) -> None:
    limit = Reply(429, headers={"ratelimit-remaining": "0;w=21600"})
    server.on("/v2/team/vllm/manifests/v1", limit)
    with pytest.raises(HostError) as caught:
        ask_slowly(server)
    assert len(server.requests) == 1
    assert "for 6 h; try again at 20" in str(caught.value)
    assert f"`docker login {server.host}` raises the limit" in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_stays_busy_is_given_up(status: int, server: ScriptedServer) -> None:
    server.on("/v2/team/vllm/manifests/v1", Reply(status))
    waits: Waits = []
    registry = Registry(patience=QUICK, on_wait=lambda *wait: waits.append(wait))
    with registry, pytest.raises(HostError, match=f"still answers {status} .* after 3 attempts"):
        registry.digest(at(server))
    assert len(server.requests) == 3
    assert 0.01 <= waits[0][1] <= 0.02 <= waits[1][1] <= 0.03


def test_a_server_that_does_not_answer_is_given_up(server: ScriptedServer) -> None:
    server.on("/v2/team/vllm/manifests/v1", Reply(delay=60))
    patience = Patience(connect=2, read=0.2, attempts=2, first_wait=0.01)
    with pytest.raises(HostError, match=r"no answer within 0\.2 s\. Check"):
        ask_slowly(server, patience)
    assert len(server.requests) == 2


def test_a_head_that_never_ends_is_given_up_and_harms_no_other_request(
    server: ScriptedServer,
) -> None:
    server.on("/v2/team/vllm/manifests/v1", Reply(drips=1000))
    server.on("/v2/team/vllm/manifests/v2", Reply(headers={"Docker-Content-Digest": DIGEST}))
    patience = Patience(connect=2, read=0.2, attempts=3, first_wait=0.01)
    with Registry(patience=patience) as registry, ThreadPoolExecutor(1) as pool:
        never = pool.submit(registry.digest, at(server))
        while not never.done():
            assert registry.digest(at(server).with_tag("v2")) == DIGEST
        with pytest.raises(HostError, match=r"was not whole within 0\.8 s"):
            never.result()
    assert len(server.asked("/v2/team/vllm/manifests/v1")) == 1


def test_a_server_that_is_gone_for_a_moment_is_asked_again(server: ScriptedServer) -> None:
    good = Reply(headers={"Docker-Content-Digest": DIGEST})
    server.on("/v2/team/vllm/manifests/v1", Reply(raw=b""), Reply(503), good)
    digest, waits = ask_slowly(server)
    assert digest == DIGEST
    assert [message.partition(": ")[2] for message, _ in waits] == [
        "what answers there does not keep to HTTP; asking again",
        "answers 503 Service Unavailable; asking again",
    ]


def test_where_nothing_listens_there_is_no_registry() -> None:
    nowhere = ImageReference.parse(f"127.0.0.1:{free_port()}/a")
    with Registry(patience=QUICK) as registry, pytest.raises(HostError, match="Connection refused"):
        registry.digest(nowhere)


@pytest.mark.parametrize("host", ["[::::]:5000", "127.0.0.1:99999", "localhost:0"])
def test_an_impossible_address_is_no_registry(host: str) -> None:
    with Registry(patience=QUICK) as registry, pytest.raises(HostError, match="Cannot talk to"):
        registry.digest(ImageReference.parse(f"{host}/a"))


def test_an_answer_that_no_repetition_changes_is_final(server: ScriptedServer) -> None:
    server.on("/v2/team/vllm/manifests/v1", Reply(418))
    with pytest.raises(HostError, match="answers 418"):
        ask_slowly(server)
    assert len(server.requests) == 1


# --- Docker Hub's own interface


def hub_page(names: list[str], following: str | None = None) -> Reply:
    results = [
        {"name": name, "digest": DIGEST, "full_size": 9, "last_updated": "2025-03-04T05:06:07.1Z"}
        for name in names
    ]
    return Reply(body={"count": 3, "next": following, "results": results})


HUB_PATH = "/v2/namespaces/vllm/repositories/vllm-openai/tags"
CUT_OFF = Reply(403, {"message": "pagination offset too large for anonymous requests; sign in"})


def test_docker_hub_lists_tags_with_digest_and_date(server: ScriptedServer) -> None:
    following = f"https://hub.docker.com{HUB_PATH}?page=2&page_size=100"
    last = hub_page(["v1"])
    last.body["results"] += [
        {"name": "old", "last_updated": "2020-01-01T00:00:00Z", "images": []},
        {"name": "undated", "digest": DIGEST},
        {"name": "no tag", "last_updated": "2020-01-01T00:00:00Z"},
    ]
    server.on(HUB_PATH, Reply(503), hub_page(["nightly", "latest"], following), last)
    waits: Waits = []
    tags = hub_tags(
        "vllm/vllm-openai",
        base_url=server.url,
        on_wait=lambda *wait: waits.append(wait),
        patience=QUICK,
    )
    assert [tag.name for tag in tags] == ["nightly", "latest", "v1", "old"]
    assert (tags[0].digest, tags[0].size) == (DIGEST, 9)
    assert tags[0].updated == datetime(2025, 3, 4, 5, 6, 7, 100000, tzinfo=UTC)
    assert tags[3].digest is None
    assert [asked.query["page"] for asked in server.requests] == ["1", "1", "2"]
    assert len(waits) == 1


def test_docker_hub_shows_strangers_only_the_first_tags(
    server: ScriptedServer, docker_config: Path
) -> None:
    pages = [hub_page(["a"], f"{HUB_PATH}?page=2"), CUT_OFF]
    server.on(HUB_PATH, *pages)
    with pytest.raises(TagsCutOff, match=r"only the first 1 tags .*docker login") as caught:
        hub_tags("vllm/vllm-openai", base_url=server.url)
    assert [tag.name for tag in caught.value.tags] == ["a"]

    server.on(
        HUB_PATH,
        *pages,
        lambda asked: (
            hub_page(["b"]) if asked.headers.get("authorization") == f"Bearer {TOKEN}" else CUT_OFF
        ),
    )
    server.on("/v2/auth/token", Reply(body={"access_token": TOKEN}))
    logged_in(docker_config, server.host)
    assert [tag.name for tag in hub_tags("vllm/vllm-openai", base_url=server.url)] == ["a", "b"]
    [signed_in] = server.asked("/v2/auth/token")
    assert json.loads(signed_in.body) == {"identifier": "ada", "secret": PASSWORD}

    server.on(HUB_PATH, *pages)
    server.on("/v2/auth/token", lambda asked: Reply(401, asked.body))
    with pytest.raises(TagsCutOff) as caught:
        hub_tags("vllm/vllm-openai", base_url=server.url)
    assert not secrets_in(shown(caught.value))


def test_what_docker_hub_does_not_have_is_missing(server: ScriptedServer) -> None:
    with pytest.raises(ImageMissing, match="no repository vllm/none"):
        hub_tags("vllm/none", base_url=server.url)
    server.on(HUB_PATH, Reply(body="<html>"))
    with pytest.raises(HostError, match="not with a list of tags"):
        hub_tags("vllm/vllm-openai", base_url=server.url)


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        (
            {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"},
            "76 of 100 pulls in 6 h left",
        ),
        ({"ratelimit-remaining": "0"}, "0 pulls left"),
        ({"ratelimit-limit": "many", "ratelimit-remaining": "3;w=21600"}, "3 pulls in 6 h left"),
        ({"ratelimit-limit": "100;w=21600"}, "None"),
        ({"ratelimit-remaining": "9" * 30}, "None"),
        ({"ratelimit-remaining": "-1;w=21600"}, "None"),
        ({}, "None"),
    ],
)
def test_what_is_left_of_an_allowance_is_read(headers: dict[str, str], told: str) -> None:
    """As Docker Hub sends it with each answer; anything else is nothing."""
    assert str(allowance_in(Answer(200, httpx.Headers(headers), b""))) == told
