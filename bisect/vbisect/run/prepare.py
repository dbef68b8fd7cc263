"""From the command line's words to the settings of a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from vbisect import __version__
from vbisect.builds.image_store import ImageStore
from vbisect.engine import Engine, connect, engine_answers
from vbisect.engine.address import UNNAMED, engine_address
from vbisect.engine.images import plain_http_registries, platform_of
from vbisect.engine.product import Product
from vbisect.engine.sockets import other_engines
from vbisect.errors import HostError, UsageError
from vbisect.launch.arguments import Limited, parse_serve_argument, parse_variable, refuse_secrets
from vbisect.launch.request_log import log_arguments
from vbisect.models.image import tiny_image_data_url
from vbisect.paths import host_identity, with_tilde
from vbisect.probes import Endpoint
from vbisect.registry import ImageReference, Registry
from vbisect.releases import Device, RangeRequest, Release, known_releases, select_range
from vbisect.releases.candidates import Nightlies
from vbisect.releases.nightly_image import NightlyImages
from vbisect.releases.nightly_wheel import NightlyWheels
from vbisect.run.accelerators import AMD, other_accelerator
from vbisect.run.asked import Asked, check_amount, one_of, what_is_asked
from vbisect.run.at_once import settled
from vbisect.run.capacity import engine_capacity, host_capacity
from vbisect.run.docker_settings import (
    BUILD_MODES,
    DockerSettings,
    default_image_repo,
    parse_gpus,
    parse_image,
    parse_memory,
    parse_size,
)
from vbisect.run.engine_choice import engine_asked, engine_notes
from vbisect.run.fit import fitted
from vbisect.run.gpus import OUTSIDE, list_gpus
from vbisect.run.inherited import environment_notes, inherited_variables
from vbisect.run.known_settings import for_no_candidate, not_known
from vbisect.run.model import (
    ResolvedModel,
    default_model,
    dynamo_notes,
    resolve_control,
    resolve_model,
    takes_pictures,
)
from vbisect.run.options import DockerOptions, RunOptions
from vbisect.run.pictures import picture_data_url, picture_path, pictures_among
from vbisect.run.repositories import check_repositories
from vbisect.run.room import find_room
from vbisect.run.runtimes import RUNTIMES
from vbisect.run.runtimes.venv import installed
from vbisect.run.settings import AUTO, JobsAsked, RunSettings
from vbisect.search import Find
from vbisect.text import without_secrets


def prepare(options: RunOptions, results: Path) -> RunSettings:
    """Check every option, resolve what moves, and list the candidates.

    How long trials take here is learnt from the runs below ``results``.
    Raises ``UsageError`` for a wrong option and ``HostError`` for one this host cannot honour.
    Nothing is started; only the package index is asked.
    """
    if not options.start or not options.end:
        raise UsageError("Give both --from and --to, or --resume RUN_DIR.")
    _check_numbers(options)
    serve_args = tuple(parse_serve_argument(value) for value in options.serve_args)
    # a name may stand in one of them and its value in the next
    refuse_secrets("--serve-arg", [w for limited in serve_args for w in limited.text.split()])
    given = (parse_variable(value) for value in options.env)
    engine_of_vllm, env = engine_asked(options.engine, given)
    jobs = _jobs(options.jobs)
    find = Find(one_of("--find", options.find, list(Find)))
    asked = what_is_asked(options)
    _check_randomness(asked)
    picture, images = pictures_among(options.docker.image or ())
    docker_options = replace(options.docker, image=images or None)
    runtime = choose_runtime(options.runtime, docker_options)
    with ExitStack() as stack:
        engine = None
        if runtime == "docker":
            engine = stack.enter_context(connect(options.docker.docker_host))
        host = engine.identity if engine else host_identity()
        capacity = engine_capacity(engine) if engine else host_capacity()
        named = ImageStore(engine).names() if engine and jobs == AUTO else frozenset()
        device = choose_device(options.device, engine)
        docker = docker_settings(docker_options, device, engine.product) if engine else None
        # beside the model, which may take its time too
        beside = stack.enter_context(ThreadPoolExecutor(1))
        ends = (options.start, options.end)
        listing = beside.submit(known_releases, pre=options.pre, named=ends)
        asked_model = default_model(device) if options.model is None else options.model
        model = resolve_model(asked_model, device, options.skeleton)
        control = _control(options, model, device)
        known = listing.result()
        nightlies: Nightlies = NightlyWheels(device)
        if engine is not None and docker is not None:
            registry = stack.enter_context(Registry(plain_http=plain_http_registries(engine)))
            variant = docker.variant_of(known.newest.version)
            repository = docker.image_repo
            nightlies = NightlyImages(registry, repository, platform_of(engine), variant)
        inherited = inherited_variables(env, engine_of_vllm, runtime)
        told = (*passed_over(options.runtime, runtime), *environment_notes(inherited, engine))
        told += dynamo_notes((model, control), (*inherited, *env))
        request = RangeRequest(options.start, options.end, options.skip)
        chosen = select_range(request, known, nightlies)
    tested = [r.version for r in chosen.candidates if r.version not in chosen.excluded]
    image, of_image = _image(picture, options, model)
    asked = asked.with_image(image)
    pictured = asked.image is not None
    of_none = for_no_candidate(serve_args, env, docker, chosen.candidates)
    settings = RunSettings(
        vbisect=__version__,
        run_id=_run_id(options),
        start=options.start,
        end=options.end,
        skip=options.skip,
        pre=options.pre,
        find=find,
        sweep=options.sweep,
        find_all=options.find_all,
        hint=_hint(options.hint, chosen.candidates),
        failure=options.failure,
        max_skips=options.max_skips,
        fresh=options.fresh,
        engine=engine_of_vllm,
        try_all=options.try_all,
        confidence=options.confidence,
        jobs=1 if jobs == AUTO else jobs,
        jobs_asked=jobs,
        tensor_parallel=options.tensor_parallel,
        slots_per_gpu=options.slots_per_gpu,
        host=host,
        gpu_models=_gpu_models(device, engine),
        runtime=runtime,
        device=device,
        docker=docker,
        latest_deps=options.latest_deps,
        model=model.name,
        model_path=model.path,
        skeleton=options.skeleton,
        model_args=model.arguments,
        model_env=model.environment,
        control_model=control.name if control else None,
        control_path=control.path if control else None,
        control_args=control.arguments if control else (),
        control_env=control.environment if control else {},
        control_sees=pictured and control is not None and bool(takes_pictures(control)),
        picture=with_tilde(picture_path(picture).absolute()) if picture else None,
        log_args=() if asked.command else log_arguments(serve_args),
        serve_args=serve_args,
        env=env,
        inherited=inherited,
        boot_timeout=options.boot_timeout,
        releases_from=known.source,
        notes=(
            *known.warnings,
            *chosen.notes,
            *told,
            *engine_notes(engine_of_vllm, tested),
            *not_known(serve_args, env, tested),
            *of_none,
            *of_image,
        ),
        excluded=tuple(r.version for r in chosen.candidates if r.version in chosen.excluded),
        n_choices=asked.n_choices,
        suite=asked.suite,
        command=asked.command,
        candidates=chosen.candidates,
    )
    check_repositories(settings)
    settings = fitted(settings)
    if jobs == AUTO:
        settings = settled(settings, capacity, _there(settings, named), results)
    _check_recordable(settings)
    with suppress(HostError):  # a GPU that is busy now may be free when the run begins
        find_room(settings, capacity)
    return settings


def _check_recordable(settings: RunSettings) -> None:
    """What cannot be recorded is not begun; raises ``UsageError`` for it."""
    recorded = settings.to_toml().decode()
    if without_secrets(recorded) != recorded:
        raise UsageError(
            "An option or the address of an index holds a secret, and both are recorded: have it "
            "where pip, Docker or the server look for it themselves."
        )


def make_run_dir(results: Path, run_id: str) -> Path:
    """An empty directory for the run below ``results``; raises ``UsageError`` if it cannot be."""
    for number in range(1, 1000):
        run_dir = results / (run_id if number == 1 else f"{run_id}-{number}")
        try:
            run_dir.mkdir(parents=True)
            (run_dir / "trials").mkdir()
        except FileExistsError:
            if results.is_dir():
                continue
            raise UsageError(f"--results {results} is not a directory.") from None
        except OSError as error:
            raise UsageError(f"--results {results} cannot be written: {error.strerror}.") from None
        return run_dir
    raise UsageError(f"--results {results} holds too many runs of this second.")


def choose_runtime(asked: str, docker: DockerOptions) -> str:
    """The runtime to use; ``auto`` takes Docker where an engine answers.

    Raises ``UsageError`` when options for containers are given without containers.
    """
    given = [name for name, value in vars(docker).items() if value is not None]
    if one_of("--runtime", asked, ["auto", *RUNTIMES]) != "auto":
        runtime = asked
    else:
        meant = docker.docker_host is not None or engine_answers()
        runtime = "docker" if meant else "venv"
    if runtime != "docker" and given:
        flag = "--" + given[0].replace("_", "-")
        raise UsageError(f"{flag} is for --runtime docker, and this is --runtime {runtime}.")
    return runtime


def passed_over(asked: str, runtime: str) -> tuple[str, ...]:
    """What to say where ``auto`` takes no images although there may be another engine."""
    if asked != "auto" or runtime == "docker" or engine_address().source != UNNAMED:
        return ()
    others = other_engines()
    return (f"No Docker engine answers, so wheels are tested. {others}",) if others else ()


def choose_device(asked: str, engine: Engine | None = None, root: Path = Path("/")) -> Device:
    """The device to use; ``auto`` decides by the presence of a GPU where the servers will run.

    ``root`` is where this host's own files are. Raises ``HostError`` for one that is not there, and
    for ``auto`` where there is an accelerator that vbisect does not test on.
    """
    if one_of("--device", asked, ["auto", *Device]) == Device.CPU:
        return Device.CPU
    problem = _no_gpu(engine)
    if asked == "auto":
        if problem is None:
            return Device.CUDA
        if (other := _other_accelerator(engine, root)) is not None:
            raise HostError(
                f"This host has {other}, which is not supported; --device cpu would test another "
                "build."
            )
        return Device.CPU
    # of an engine without a GPU runtime, the engine itself says what is missing
    if problem is not None and engine is None:
        raise HostError(f"--device cuda: {problem}.")
    return Device.CUDA


def _no_gpu(engine: Engine | None) -> str | None:
    """Why servers would find no GPU, ``None`` where they may."""
    if engine is not None and engine.gpu_access is not None:
        return None
    if engine is not None and engine.remote:
        return f"the engine at {engine.where} gives its containers no GPU"
    return list_gpus().problem


def _other_accelerator(engine: Engine | None, root: Path) -> str | None:
    """What servers would find instead, ``None`` where that is nothing."""
    if engine is not None and engine.has_amd_gpus:
        return AMD
    return None if engine is not None and engine.remote else other_accelerator(root)


def docker_settings(
    options: DockerOptions, device: Device, product: Product = Product.DOCKER
) -> DockerSettings:
    """The settings of ``--runtime docker``; raises ``UsageError``."""
    repository = ImageReference.parse(options.image_repo or default_image_repo(device))
    if repository.tag or repository.digest:
        raise UsageError(
            f"--image-repo {options.image_repo}: leave out the tag; versions are tags."
        )
    if options.pull_timeout is not None:
        check_amount("--pull-timeout", options.pull_timeout)
    budget = options.disk_budget
    return DockerSettings(
        host=options.docker_host,
        product=product,
        image_repo=repository.name,
        image_variant=tuple(
            Limited.parse("--image-variant", value) for value in options.image_variant or ()
        ),
        images=dict(parse_image(value) for value in options.image or ()),
        gpus=parse_gpus(options.gpus or ("all" if device is Device.CUDA else "none")),
        memory=parse_memory(options.memory) if options.memory else None,
        build=one_of("--build", options.build or "never", list(BUILD_MODES)),
        base_image=options.base_image,
        disk_budget=parse_size("--disk-budget", budget) if budget else None,
        pull_timeout=options.pull_timeout or 300,
    )


def _gpu_models(device: Device, engine: Engine | None) -> tuple[str, ...]:
    """The models of the GPUs that servers may be given, each once; none of a remote host's."""
    if device is Device.CPU or (engine is not None and engine.remote):
        return ()
    return tuple(sorted({gpu.name for gpu in list_gpus().gpus if gpu.busy != OUTSIDE}))


def _image(
    picture: str | None, options: RunOptions, model: ResolvedModel
) -> tuple[str | None, tuple[str, ...]]:
    """What is sent with chats, and what there is to say of it.

    It is the picture asked for, else a tiny one to a model that takes any. Raises ``UsageError``
    for a picture that cannot be sent.
    """
    if picture is not None:
        if options.command:
            raise UsageError(f"--image {picture}: a command sends its own requests.")
        if options.endpoint != Endpoint.CHAT:
            raise UsageError(f"--image {picture}: only --endpoint chat takes a picture.")
        if model.name.startswith("tiny:") and model.image is None:
            raise UsageError(f"--image {picture}: {model.name} takes no pictures.")
        return picture_data_url(picture), ()
    if options.command or options.endpoint != Endpoint.CHAT or options.model is None:
        return None, ()  # the default models take none
    if (sees := takes_pictures(model)) is None:
        note = "its configuration cannot be had, so it is asked without a picture"
        return None, (f"--model {model.name}: {note}; --image sends one.",)
    return (model.image or tiny_image_data_url()) if sees else None, ()


def _control(options: RunOptions, model: ResolvedModel, device: Device) -> ResolvedModel | None:
    if options.control_model is None:
        return None
    return resolve_control(options.control_model, model, device, options.skeleton)


def _hint(asked: str | None, candidates: Sequence[Release]) -> str | None:
    """The candidate that ``--hint`` names, a leading v allowed. Raises ``UsageError``."""
    if asked is None:
        return None
    named = asked.removeprefix("v")
    if named not in {release.version for release in candidates}:
        raise UsageError(f"--hint {asked}: it is not among the {len(candidates)} candidates.")
    return named


def _check_numbers(options: RunOptions) -> None:
    if options.failure is not None and not options.failure.strip():
        raise UsageError("--failure: it must be a piece of what the failure is told as.")
    if not 0.5 <= options.confidence < 1:
        raise UsageError(
            f"--confidence {options.confidence:g}: it must be at least 0.5 and below 1."
        )
    for flag, value in (
        ("--max-skips", options.max_skips),
        ("--tp", options.tensor_parallel),
        ("--slots-per-gpu", options.slots_per_gpu),
        ("--boot-timeout", options.boot_timeout),
    ):
        check_amount(flag, value)


def _check_randomness(asked: Asked) -> None:
    """Raise ``UsageError`` for what no release answers, so that none could be tested."""
    request = asked.n_choices
    if request is not None and not request.temperature and (several := max(request.n)) > 1:
        raise UsageError(
            f"--temperature 0: vLLM refuses n={several} without randomness, in every release. Give "
            "--n 1, or a temperature above 0."
        )


def _jobs(asked: str) -> JobsAsked:
    """What ``--jobs`` asks for; raises ``UsageError``."""
    if asked == AUTO:
        return AUTO
    if not re.fullmatch(r"-?\d{1,12}", asked, re.ASCII):
        raise UsageError(f"--jobs {asked}: it must be a whole number, or auto.")
    check_amount("--jobs", int(asked))
    return int(asked)


def _there(settings: RunSettings, images: Collection[str]) -> frozenset[str]:
    """The versions whose builds are on the host; of images that is told by their names."""
    if settings.docker is None:
        return installed(settings, settings.candidates)
    named = ((r.version, settings.docker.image_of(r)) for r in settings.candidates)
    return frozenset(version for version, image in named if image in images)


def _run_id(options: RunOptions) -> str:
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{moment}-{options.start}-{options.end}".replace("/", "_")
