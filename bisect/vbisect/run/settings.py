"""The settings of a run as resolved: written to ``run.toml``, enough to repeat the run."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Any, Final, Literal

import tomli_w
from packaging.specifiers import SpecifierSet
from pydantic import Field, ValidationError

from vbisect.amounts import Amount, Timeout
from vbisect.errors import UsageError
from vbisect.files import Below, write_whole
from vbisect.launch import Limited
from vbisect.launch.engine_version import EngineAsked
from vbisect.paths import expanded
from vbisect.probes import CommandSettings, NChoicesSettings, SuiteSettings
from vbisect.reasons import SkipReason
from vbisect.releases import Device, Release, lasting_name
from vbisect.run.docker_settings import DockerSettings, default_image_repo
from vbisect.run.records import Frozen
from vbisect.search import MAX_SKIPS, Find
from vbisect.text import in_every_text

FILE_NAME = "run.toml"
SCHEMA: Final = 1

_LARGEST = 32 * 2**20
"""Bytes of a file of settings; one with a picture has some six million."""


AUTO: Final = "auto"

JobsAsked = Literal["auto"] | Amount
"""What ``--jobs`` says: a number, or that vbisect settles on one."""


class Unfit(Frozen):
    """A candidate that the host cannot run, as known before anything was fetched, and why."""

    version: str
    reason: SkipReason
    detail: str


class RunSettings(Frozen):
    """Every setting of one run.

    ``start`` and ``end`` are as asked; ``candidates`` is what they were resolved to, oldest first.
    ``serve_args`` and ``env`` are the user's, ``model_args`` and ``model_env`` those the model
    and device need, ``log_args`` what has requests logged; ``boot_timeout`` is in seconds.
    ``jobs`` is how many servers there are at once, at most, and ``jobs_asked`` what ``--jobs`` said
    (``None`` as an older vbisect has it, which had one where no number was given). Where that is
    ``auto``, a host with less room goes on with fewer, and the line that repeats the run names no
    number.
    ``inherited`` are variables of vLLM that the user's own environment had as the run began.
    ``unfit`` are the candidates that are not tried, unless ``try_all``.
    ``picture`` is the file that the requests' image is from. ``host`` tells hosts apart, and
    nothing else of them: the engine's identity, or that of the cache directory. ``gpu_models`` are
    those of its GPUs, as far as they are known.

    The control is a second model that every release also serves; ``control_args`` and
    ``control_env`` are what it needs, and ``control_sees`` whether it can be sent a picture.
    """

    schema_version: Literal[1] = Field(SCHEMA, alias="schema")
    vbisect: str
    run_id: str
    start: str = Field(alias="from")
    end: str = Field(alias="to")
    skip: tuple[str, ...] = ()
    pre: bool = False
    find: Find = Find.AUTO
    sweep: bool = False
    find_all: bool = False
    hint: str | None = None
    failure: str | None = None
    max_skips: Amount = MAX_SKIPS
    fresh: bool = False
    engine: EngineAsked = EngineAsked.AUTO
    try_all: bool = False
    confidence: float = Field(0.95, ge=0.5, lt=1)
    jobs: Amount = 1
    jobs_asked: JobsAsked | None = None
    tensor_parallel: Amount = 1
    slots_per_gpu: Amount = 1
    host: str | None = None
    gpu_models: tuple[str, ...] = ()
    runtime: str = "venv"
    device: Device
    latest_deps: bool = False
    docker: DockerSettings | None = None
    model: str
    model_path: str
    skeleton: bool = False
    model_args: tuple[Limited, ...] = ()
    model_env: dict[str, str] = Field(default_factory=dict)
    control_model: str | None = None
    control_path: str | None = None
    control_args: tuple[Limited, ...] = ()
    control_env: dict[str, str] = Field(default_factory=dict)
    control_sees: bool = False
    picture: str | None = None
    log_args: tuple[Limited, ...] = ()
    serve_args: tuple[Limited, ...] = ()
    env: tuple[Limited, ...] = ()
    inherited: tuple[Limited, ...] = ()
    boot_timeout: Timeout = 600
    releases_from: str
    notes: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    unfit: tuple[Unfit, ...] = ()
    n_choices: NChoicesSettings | None = None
    suite: SuiteSettings | None = None
    command: CommandSettings | None = None
    candidates: tuple[Release, ...]

    @property
    def probe(self) -> NChoicesSettings | CommandSettings | SuiteSettings:
        """The settings of the probe that was chosen."""
        chosen = self.command or self.suite or self.n_choices
        assert chosen is not None
        return chosen

    @property
    def control_probe(self) -> NChoicesSettings | CommandSettings | SuiteSettings:
        """What the control is asked: the same, without a picture where it takes none."""
        if self.command is None and self.n_choices is not None and not self.control_sees:
            return self.n_choices.model_copy(update={"image": None})
        if self.suite is not None and not self.control_sees:
            request = self.suite.request.model_copy(update={"image": None})
            return self.suite.model_copy(update={"request": request})
        return self.probe

    @property
    def variables(self) -> tuple[Limited, ...]:
        """The user's variables for servers: those of the environment, then those given."""
        return (*self.inherited, *self.env)

    @property
    def versions(self) -> tuple[str, ...]:
        """The candidates' versions, oldest first."""
        return tuple(release.version for release in self.candidates)

    def replay_command(self) -> str:
        """One line that repeats the run, as far as moving names allow."""
        return shlex.join(_replay_words(self))

    def write(self, run_dir: Path) -> None:
        """Write ``run.toml`` into ``run_dir``."""
        write_whole(run_dir / FILE_NAME, self.to_toml())

    def to_toml(self) -> bytes:
        """What ``run.toml`` holds; raises ``UsageError`` for a text that no file can hold."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        try:
            return tomli_w.dumps(data).encode()
        except UnicodeEncodeError:
            raise UsageError(
                "A text among the options is no UTF-8: it can't be recorded."
            ) from None

    @classmethod
    def read(cls, run_dir: Path) -> RunSettings:
        """Read ``run.toml``: whatever is named there can be only what vbisect would have written.

        Raises ``UsageError`` when ``run_dir`` is not a run directory, or has another's settings.
        """
        return cls.parse(read_settings(run_dir), run_dir)

    @classmethod
    def parse(cls, content: bytes, run_dir: Path) -> RunSettings:
        """The settings that ``content`` is, which is from ``run_dir``; raises ``UsageError``."""
        path = run_dir / FILE_NAME
        try:
            data = tomllib.loads(content.decode("utf-8"))
        except RecursionError:
            raise UsageError(f"{path} is damaged: it is nested too deeply.") from None
        except ValueError as error:  # no UTF-8, no TOML
            raise UsageError(f"{path} is damaged: {error}.") from None
        schema = data.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise UsageError(f"{path} was written by a newer vbisect (schema {schema}).")
        try:
            in_every_text(_without_nul, data)
            settings = cls.model_validate(data)
            _check(settings)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            problem = f"{where}: {first['msg']}" if where else first["msg"]
            raise UsageError(f"{path} is damaged: {problem}.") from None
        except (UsageError, ValueError) as error:
            raise UsageError(f"{path} is damaged: {str(error).removesuffix('.')}.") from None
        return settings


def require_settings(run_dir: Path) -> None:
    """Raise ``UsageError`` when ``run_dir`` is no run directory; nothing of it is read."""
    try:
        (run_dir / FILE_NAME).lstat()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{run_dir} is not a run directory: it has no {FILE_NAME}.") from None
    except OSError as error:
        raise UsageError(f"{run_dir / FILE_NAME} cannot be read: {error.strerror}.") from None


def read_settings(run_dir: Path) -> bytes:
    """The content of ``run.toml``; raises ``UsageError`` when ``run_dir`` is no run directory."""
    try:
        return (Below(run_dir) / FILE_NAME).read(_LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{run_dir} is not a run directory: it has no {FILE_NAME}.") from None
    except OSError as error:
        raise UsageError(f"{run_dir / FILE_NAME} cannot be read: {error.strerror}.") from None


def _without_nul(text: str) -> str:
    """``text``, which no process could be given with a NUL in it; raises ``ValueError``."""
    if "\0" in text:
        raise ValueError("a text holds a NUL")
    return text


def _check(s: RunSettings) -> None:
    """Raise ``ValueError`` for what no run that vbisect began has in its settings."""
    from vbisect.run.runtimes import RUNTIMES  # which take settings

    versions = set(s.versions)
    arguments = (*s.model_args, *s.control_args, *s.log_args, *s.serve_args)
    named = (variable.text.partition("=")[0] for variable in s.variables)
    variables = (*s.model_env, *s.control_env, *named)
    wrong = {
        "candidates: each has to be another one": len(versions) < max(1, len(s.candidates)),
        "excluded: they have to be candidates": not versions.issuperset(s.excluded),
        "unfit: they have to be candidates": not versions.issuperset(u.version for u in s.unfit),
        "hint: it has to be a candidate": s.hint is not None and s.hint not in versions,
        "nothing is asked": not (s.command or s.suite or s.n_choices),
        "bisect_on: it is no variation": not _decides(s.suite),
        "runtime: there is no such one": s.runtime not in RUNTIMES,
        "docker: it is missing": s.runtime == "docker" and s.docker is None,
        "control_model: it is missing": s.control_path is not None and s.control_model is None,
        "env: a name is none": not all(name.isidentifier() for name in variables),
    }
    for problem in (words for words, applies in wrong.items() if applies):
        raise ValueError(problem)
    for limited in (*arguments, *s.variables):
        SpecifierSet(limited.specifier)
    for limited in arguments:
        shlex.split(limited.text)
    for path in filter(None, (s.model_path, s.control_path)):
        expanded(path)


def _decides(suite: SuiteSettings | None) -> bool:
    return suite is None or any(suite.decides(variation.name) for variation in suite.variations)


def _replay_words(s: RunSettings) -> list[str]:
    oldest, newest = s.candidates[0], s.candidates[-1]
    words = ["vbisect", "run", "--from", lasting_name(s.start, oldest)]
    words += ["--to", lasting_name(s.end, newest)]
    words += _each("--skip", s.skip)
    words += ["--pre"] if s.pre else []
    words += ["--find", s.find] if s.find is not Find.AUTO else []
    words += ["--sweep"] if s.sweep else []
    words += ["--find-all"] if s.find_all else []
    words += ["--fresh"] if s.fresh else []
    words += ["--try-all"] if s.try_all else []
    words += ["--hint", s.hint] if s.hint else []
    words += ["--failure", s.failure] if s.failure else []
    words += _unless_default("--max-skips", s.max_skips, MAX_SKIPS)
    words += _unless_default("--confidence", s.confidence, 0.95)
    if s.jobs_asked is None:
        words += _unless_default("--jobs", s.jobs, 1)
    elif s.jobs_asked != AUTO:
        words += ["--jobs", str(s.jobs_asked)]
    words += _unless_default("--tp", s.tensor_parallel, 1)
    words += _unless_default("--slots-per-gpu", s.slots_per_gpu, 1)
    words += ["--runtime", s.runtime, "--device", s.device, "--model", s.model]
    words += ["--control-model", s.control_model] if s.control_model else []
    words += ["--skeleton"] if s.skeleton else []
    words += ["--engine", s.engine] if s.engine is not EngineAsked.AUTO else []
    words += _each("--serve-arg", s.serve_args) + _each("--env", s.variables)
    words += ["--latest-deps"] if s.latest_deps else []
    words += _docker_words(s.docker, s.device) if s.docker else []
    words += _unless_default("--boot-timeout", s.boot_timeout, 600)
    if s.suite is not None:
        words += ["--suite", *(["--bisect-on", s.suite.bisect_on] if s.suite.bisect_on else [])]
    asked = s.suite.request if s.suite else s.n_choices
    if asked is not None:
        p, default = asked, NChoicesSettings()
        words += ["--endpoint", p.endpoint, *(_each("--n", p.n) if s.n_choices else [])]
        words += ["--stream"] if p.stream else []
        words += ["--image", s.picture] if s.picture else []
        for option in ("temperature", "top_p", "max_tokens", "request_timeout"):
            flag = "--" + option.replace("_", "-")
            words += _unless_default(flag, getattr(p, option), getattr(default, option))
    if s.command is not None:
        words += _unless_default("--command-timeout", s.command.timeout, 600)
        words += ["--", *s.command.command]
    return words


def _docker_words(d: DockerSettings, device: Device) -> list[str]:
    words = ["--docker-host", d.host] if d.host else []
    if d.image_repo != default_image_repo(device):
        words += ["--image-repo", d.image_repo]
    words += _each("--image-variant", d.image_variant)
    words += _each("--image", tuple(f"{version}={ref}" for version, ref in d.images.items()))
    words += ["--gpus", d.gpus]
    words += ["--memory", str(d.memory)] if d.memory else []
    words += ["--build", d.build] if d.build != "never" else []
    words += ["--base-image", d.base_image] if d.base_image else []
    words += ["--disk-budget", str(d.disk_budget)] if d.disk_budget is not None else []
    return words + _unless_default("--pull-timeout", d.pull_timeout, 300)


def _each(flag: str, values: tuple[Any, ...]) -> list[str]:
    return [word for value in values for word in (flag, str(value))]


def _unless_default(flag: str, value: float, default: float) -> list[str]:
    return [] if value == default else [flag, str(value).removesuffix(".0")]
