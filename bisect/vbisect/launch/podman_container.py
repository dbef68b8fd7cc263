"""A container with devices of CDI, by Podman's own API: its Docker one passes over them (4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import requests
from docker.errors import create_api_error_from_http_exception

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_CREATE = "/v4.0.0/libpod/containers/create"
"""The oldest version of it that Podman 4 and 5 serve
(https://docs.podman.io/en/latest/_static/api.html)."""


def create_with_devices(
    client: DockerClient, image: str, arguments: Mapping[str, Any]
) -> Container:
    """What ``containers.create`` makes of ``arguments``, with the devices of its requests.

    Raises as that does.
    """
    spec = _spec(image, arguments)
    if arguments["use_config_proxy"]:
        proxies = client.api._proxy_configs  # type: ignore[attr-defined]  # the SDK's own reading
        spec["env"] = proxies.get_environment() | spec["env"]
    response = client.api.post(f"{client.api.base_url}{_CREATE}", json=spec)
    try:
        response.raise_for_status()
    except requests.exceptions.HTTPError as error:
        create_api_error_from_http_exception(error)
    return client.containers.get(response.json()["Id"])


def wants_devices(arguments: Mapping[str, Any]) -> bool:
    """Whether ``arguments`` ask for devices by names of CDI."""
    return any(request["Driver"] == "cdi" for request in arguments["device_requests"])


def _spec(image: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` in Podman's words."""
    names = [name for asked in arguments["device_requests"] for name in asked["DeviceIDs"]]
    memory = arguments.get("mem_limit")
    return {
        "image": image,
        **({"entrypoint": arguments["entrypoint"]} if arguments["entrypoint"] else {}),
        "command": arguments["command"],
        "env": arguments["environment"],
        "labels": arguments["labels"],
        "portmappings": [
            {"host_ip": address, "container_port": int(port.partition("/")[0])}
            for port, (address, _) in arguments["ports"].items()
        ],
        "shm_size": arguments["shm_size"],
        "no_new_privileges": "no-new-privileges" in arguments["security_opt"],
        "devices": [{"path": name} for name in names],
        "log_configuration": {"driver": "k8s-file"},
        **_places(arguments["volumes"]),
        **({"resource_limits": {"memory": {"limit": memory, "swap": memory}}} if memory else {}),
    }


def _places(volumes: Sequence[str]) -> dict[str, Any]:
    """Folders of the host and named volumes, which Podman is told apart."""
    parts = [(*volume.split(":"), "rw")[:3] for volume in volumes]
    return {
        "mounts": [
            {"type": "bind", "source": place, "destination": inside, "options": ["rbind", mode]}
            for place, inside, mode in parts
            if place.startswith("/")
        ],
        "volumes": [
            {"Name": name, "Dest": inside, "Options": [mode]}
            for name, inside, mode in parts
            if not name.startswith("/")
        ],
    }
