"""A first download that takes longer than a boot may be silent: 200 MB from a hub at 1 MB/s.

Over the stand-ins, with the real client of the hub. Prints a run's progress, and last one JSON
line: how it ended, how often the weights were sent, boots that timed out, and seconds.

    python tests/bench/first_download.py [MEGABYTES [MEGABYTES_PER_SECOND [BOOT_TIMEOUT]]]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from driving import Vbisect, counts, events, world
from standin.behaviour import Behaviour
from standin.hub import Model, ModelHub, model_files
from standin.index import PackageIndex
from standin.wheels import repack

NAME = "org/model"


def main() -> None:
    megabytes, rate, timeout = [*map(float, sys.argv[1:]), 200, 1, 60][:3]
    good, bad = Behaviour(loads_weights=True), {"chat": 1.0}
    releases = {f"90.{i}": good for i in range(4)}
    releases |= {f"90.{i}": Behaviour(loads_weights=True, fail_rate=bad) for i in range(2)}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        repack(place / "wheels", "huggingface_hub")
        requires = {version: ["huggingface_hub"] for version in releases}
        model = Model(model_files(int(megabytes * 1e6), shards=4))
        with (
            PackageIndex(world(place / "wheels", releases, requires)) as index,
            ModelHub({NAME: model}, rate * 1e6) as hub,
        ):
            vbisect = Vbisect(index, place, place / "cache", place / "results")
            vbisect.env |= hub.environment(place / "hf")
            asked = ("--model", NAME, "--n", "4", "--boot-timeout", str(timeout))
            done = vbisect.run("--from", "90.0", "--to", "90.3", *asked, timeout=3600)
            left = vbisect.close()
            journal = events(done.run_dir)
            boots = sum(counts(done.run_dir, "server_ready").values())
    print(done.stderr)
    records = [event["record"] for event in journal if event["event"] == "trial_finished"]
    print(
        json.dumps(
            {
                "exit_code": done.returncode,
                "message": done.json["message"],
                "times_sent": round(sum(model.sent.values()) / (megabytes * 1e6), 3),
                "weights_seconds": [
                    event["seconds"] for event in journal if event["event"] == "weights_ready"
                ],
                "boots": boots,
                "boots_timed_out": sum(record["reason"] == "never ready" for record in records),
                "longest_boot_seconds": max(record["seconds"]["boot"] for record in records),
                "seconds": round(done.seconds, 1),
                "left_behind": len(left),
            }
        )
    )


if __name__ == "__main__":
    main()
