"""``vbisect probe``: the probe against a server that is already running."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

from vbisect.commands.signals import signals_as_interrupt
from vbisect.connections import can_be_token
from vbisect.errors import Interrupted, UsageError
from vbisect.reasons import ADVICE, SkipReason
from vbisect.report.variations import cell
from vbisect.run.asked import what_is_asked
from vbisect.run.options import RunOptions
from vbisect.search import Outcome
from vbisect.text import one_line
from vbisect.watch.address import Address
from vbisect.watch.metrics import Metrics
from vbisect.watch.sighting import Sighting, Watched

EXIT_CODES = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.SKIP: 3}
_ADVICE = {
    SkipReason.ENDPOINT_NOT_SERVED: "The server, or a gateway before it, does not serve this "
    "endpoint to you; try another --endpoint, or set OPENAI_API_KEY where it wants a key.",
    SkipReason.REQUEST_REJECTED: "The server refused the request; its answer says why. Where it "
    "wants a key, set OPENAI_API_KEY.",
    SkipReason.COMMAND_SKIPPED: "The command gave no verdict; run it by hand to see why.",
}
"""What to do about a server that vbisect has not started, where that is something else."""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def probe_server(
    url: str,
    options: RunOptions,
    *,
    repeat: int,
    every: str | None,
    metrics_port: int | None,
    metrics_host: str,
    json_output: bool,
) -> int:
    """Look at the server ``repeat`` times, or again and again; the exit code."""
    watched = Watched(Address.parse(url), what_is_asked(options), options.model, _key())
    if repeat < 1:
        raise UsageError(f"--repeat {repeat}: it must be at least 1.")
    if every is None:
        if metrics_port is not None:
            raise UsageError("--metrics-port needs --every, as in --every 60s.")
        with signals_as_interrupt():
            return _some_times(watched, repeat, json_output)
    if repeat > 1:
        raise UsageError("--every goes on until it is stopped: leave out --repeat.")
    seconds = _duration(every)
    with suppress(Interrupted), signals_as_interrupt():
        _for_ever(watched, seconds, metrics_port, metrics_host, json_output)
    return 0


def _some_times(watched: Watched, repeat: int, json_output: bool) -> int:
    sightings = []
    for _ in range(repeat):
        sightings.append(watched.look())
        if not json_output:
            _print(watched, sightings[-1])
    outcomes = Counter(seen.outcome for seen in sightings)
    worst = next(o for o in (Outcome.FAIL, Outcome.SKIP, Outcome.PASS) if outcomes[o])
    told = next(seen for seen in sightings if seen.outcome is worst)
    if json_output:
        observations = {str(outcome): outcomes[outcome] for outcome in Outcome}
        print(json.dumps(_object(watched, told) | {"observations": observations}))
    elif repeat > 1:
        print(", ".join(f"{outcome} {number}" for outcome, number in sorted(outcomes.items())))
    if told.reason is not None:
        print(f"vbisect: {told.reason}: {_advice(told)}", file=sys.stderr)
    return EXIT_CODES[worst]


def _for_ever(
    watched: Watched, seconds: float, port: int | None, host: str, json_output: bool
) -> None:
    metrics = Metrics()
    if port is not None:
        print(f"vbisect: metrics on {metrics.serve(host, port)}", file=sys.stderr, flush=True)
    while True:
        seen = watched.look()
        metrics.count(seen)
        if json_output:
            print(json.dumps(_object(watched, seen)), flush=True)
        else:
            _print(watched, seen)
        threading.Event().wait(seconds)


def _print(watched: Watched, seen: Sighting) -> None:
    """One line: when, what came of it, of which server."""
    words = {
        Outcome.PASS: "as asked",
        Outcome.FAIL: seen.signature,
        Outcome.SKIP: f"{seen.reason}: {seen.detail}",
    }[seen.outcome]
    what = "s a request" if seen.requests else "s"
    facts = [f"{seen.seconds:.2f} {what}"] if seen.seconds is not None else []
    facts += [f"{seen.choices} choices"] if seen.choices is not None else []
    facts += [f"vLLM {seen.version}"] if seen.version else []
    facts += [f"model {seen.model}"] if seen.model else []
    told = f" ({one_line(', '.join(facts), 400)})" if facts else ""
    print(f"{seen.at}  {seen.outcome:<4}  {one_line(str(words))}{told}", flush=True)
    for variation in seen.variations:
        if variation.outcome is not Outcome.PASS and variation.reason != "variation not asked":
            why = variation.signature or variation.detail
            print(f"    {variation.name}: {cell(variation)}  {one_line(str(why))}", flush=True)


def _object(watched: Watched, seen: Sighting) -> dict[str, Any]:
    data = seen.model_dump(mode="json", by_alias=True)
    return {"schema": 1, "url": watched.address.shown, **data}


def _advice(seen: Sighting) -> str:
    if not seen.answered and seen.model is None:
        return "Is the server running, and is this its address?"
    if not seen.answered:
        return "It is there, but gave no whole answer; raise --request-timeout or read its log."
    assert seen.reason is not None
    return _ADVICE.get(seen.reason, ADVICE[seen.reason])


def _key() -> str | None:
    """What ``OPENAI_API_KEY`` holds; raises ``UsageError`` when it can be no key."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if key and not (len(key) <= 10_000 and can_be_token(key)):
        raise UsageError("OPENAI_API_KEY holds something that cannot be a key.")
    return key or None


def _duration(text: str) -> float:
    """Seconds of "60s", "5m", "1h" or "60"; raises ``UsageError``."""
    match = re.fullmatch(r"(\d{1,7}(?:\.\d{1,6})?)([smh]?)", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= 10_000_000:
        raise UsageError(f"--every {text}: write it as in 60s, 5m or 1h.")
    return seconds
