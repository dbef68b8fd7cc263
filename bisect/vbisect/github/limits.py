"""How long GitHub asks to be left alone."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx


def asked_wait(headers: httpx.Headers) -> float | None:
    """Seconds to wait after an answer that is a rate limit; ``None`` when it does not say.

    https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
    """
    after = headers.get("retry-after", "").strip()
    if re.fullmatch("[0-9]{1,10}", after):
        return float(after)
    reset = headers.get("x-ratelimit-reset", "").strip()
    if headers.get("x-ratelimit-remaining") == "0" and re.fullmatch("[0-9]{1,12}", reset):
        return max(0.0, float(reset) - _now(headers)) + 1  # the moment itself may be too early
    return None


def when(seconds: float) -> str:
    """A wait for people: how long, and until what time."""
    try:
        then = datetime.now().astimezone() + timedelta(seconds=seconds)
    except OverflowError:
        return "for ever"
    unit, name = (60, "min") if seconds < 7200 else (3600, "h")
    length = f"{seconds:.0f} s" if seconds < 120 else f"{math.ceil(seconds / unit)} {name}"
    return f"for {length}, until {then:%Y-%m-%d %H:%M}"


def _now(headers: httpx.Headers) -> float:
    """The unix time by GitHub's own clock, which its dates are about."""
    try:
        return parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        return time.time()
