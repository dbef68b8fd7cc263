"""How long one pull and one boot take when ``docker`` alone does them."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Alone:
    """Seconds of one pull, and of one boot with its request."""

    pull: float
    boot: float


def time_alone(engine: str, image: str, model: str) -> Alone:
    """Pull ``image``, boot it while looking all the time whether it is ready, ask it once."""

    def docker(*arguments: str) -> str:
        env = {**os.environ, "DOCKER_HOST": engine}
        command = ["docker", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    began = time.monotonic()
    docker("pull", "--quiet", image)
    pulled = time.monotonic()
    words = ("--model", model, "--load-format", "dummy", "--host", "0.0.0.0", "--port", "8000")
    server = docker("run", "--detach", "--publish", "127.0.0.1::8000", image, *words)
    body = {"model": model, "token_ids": [10, 11, 12], "sampling_params": {"n": 4}}
    url = f"http://{docker('port', server, '8000/tcp')}"
    with httpx.Client(base_url=url, trust_env=False) as client:
        while not _is_healthy(client):
            time.sleep(0.01)
        client.post("/inference/v1/generate", json=body).raise_for_status()
    answered = time.monotonic()
    docker("rm", "--force", server)
    return Alone(pulled - began, answered - pulled)


def _is_healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.HTTPError:
        return False
