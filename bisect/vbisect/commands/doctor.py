"""``vbisect doctor``: is this host fit, and what to do where it is not."""

from __future__ import annotations

from vbisect.engine import connect
from vbisect.errors import HostError
from vbisect.releases import Device
from vbisect.run.asked import one_of
from vbisect.run.doctor import Verdict, findings
from vbisect.run.prepare import choose_device
from vbisect.text import one_line

_UNFIT = 4


def examine(device: str, docker_host: str | None, image_repo: str | None) -> int:
    """Print one line for each part of the host; returns the exit code, 0 when runs can work."""
    if one_of("--device", device, ["auto", *Device]) == "auto":
        try:
            with connect(docker_host) as engine:
                chosen = choose_device(device, engine)
        except HostError:  # which is a finding
            chosen = choose_device(device)
    else:
        chosen = Device(device)  # that it is not there is a finding, too
    missing = False
    for finding in findings(chosen, docker_host, image_repo):
        missing |= finding.verdict is Verdict.MISSING
        print(f"{finding.verdict:<8} {finding.part}: {one_line(finding.found)}")
        if finding.advice and finding.verdict is not Verdict.OK:
            print(f"         {one_line(finding.advice)}")
    return _UNFIT if missing else 0
