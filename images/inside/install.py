"""Makes the image's environment hold exactly the packages that a lock file lists.

Runs while the image is built. What no layer and no history may hold comes as JSON in FTP_PROXY,
one of the few build arguments that Docker keeps out of both (docs.docker.com, "Predefined ARGs"),
and the only one of them that no installer looks at.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOST_FILES = "http://host-files.invalid"  # stands in the lock for where the host serves its files


def main(name):
    """Install what the lock ``name`` lists, and remove everything else; uv's exit status."""
    told = json.loads(os.environ.pop("FTP_PROXY", "") or "{}")
    environment = {**os.environ, **told.get("environment", {})}
    certificates = HERE / "ca.pem"
    if certificates.exists():
        environment["SSL_CERT_FILE"] = str(certificates)
    with tempfile.TemporaryDirectory() as scratch:
        lock = Path(scratch) / "pylock.toml"
        text = (HERE / name).read_text(encoding="utf-8")
        lock.write_text(text.replace(HOST_FILES, told.get("files", HOST_FILES)), encoding="utf-8")
        command = [str(HERE / "uv"), "pip", "sync", str(lock), "--python", "/opt/vllm/bin/python"]
        # servers boot twice as fast with bytecode, and what they write themselves is not kept
        command += ["--compile-bytecode", "--allow-empty-requirements"]
        command += ["--no-cache", "--no-config", "--no-progress", "--color", "never"]
        return subprocess.call(command, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
