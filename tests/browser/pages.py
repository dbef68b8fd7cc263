"""Pages to look at, and a page that is being looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from made import failed, passed, releases, settings, skipped
from vbisect.probes import Endpoint, NChoicesSettings
from vbisect.probes.suite import SuiteSettings, variations
from vbisect.report.html import to_html
from vbisect.run.comparisons import KeptCommit, KeptComparison
from vbisect.run.records import (
    Answer,
    Build,
    ControlRecord,
    Finding,
    ParametersSeen,
    ParametersStatus,
    Status,
    Tally,
    TrialRecord,
    VariationRecord,
)
from vbisect.run.state import RunState
from vbisect.search import Change, Outcome

SUITE = SuiteSettings(
    request=NChoicesSettings(), variations=variations(Endpoint.CHAT), bisect_on="n=8"
)
VERSIONS = tuple(f"0.{minor}.0" for minor in range(10, 34))
"""The candidates of the run that is looked at."""


class Looked:
    """One page in the browser; ``complaints`` is what went wrong, ``requests`` all it asked for."""

    def __init__(self, context: Any, path: Path, milliseconds: int) -> None:
        self.address = path.as_uri()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._context = context
        context.set_default_timeout(milliseconds)
        self.page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self._dismiss(dialog))
        self.page.on("request", lambda request: self.requests.append(request.url.split("#")[0]))
        self.page.goto(self.address)

    def _dismiss(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def version(self, name: str) -> Any:
        """The button in the table that opens a version."""
        return self.page.get_by_role("rowheader").get_by_role("button", name=name, exact=True)

    def details(self, name: str) -> Any:
        """The details of an opened version."""
        return self.page.get_by_role("article", name=f"Details of {name}")

    def stop(self, name: str) -> Any:
        """A version in the timeline."""
        return self.page.locator(".timeline a").filter(has_text=name)

    def close(self) -> None:
        """Close it with all it holds."""
        self._context.close()


def written(run_dir: Path, text: str = "returned 2 of 4 choices", older: int = 0) -> Path:
    """The page of a run with every outcome and all evidence, in which servers say ``text``.

    So many ``older`` candidates come before ``VERSIONS``.
    """
    last_before, first_after = "0.20.0", "0.23.0"
    fix = Answer(
        change=Change.FIX,
        last_before=last_before,
        first_after=first_after,
        exact=False,
        suspects=("0.21.0", "0.22.0", first_after),
        confidence=0.971,
    )
    records = [
        _rich(failed(VERSIONS[0], text), text),
        _rich(passed(VERSIONS[-1]), text),
        _rich(failed(last_before, text, fails=3, passes=15), text),
        _rich(passed(first_after), text),
        skipped("0.21.0", f"exit status 1: {text}"),
        skipped("0.22.0", text),
    ]
    made = RunState(
        settings=settings(
            candidates=releases((*(f"0.9.{patch}" for patch in range(older)), *VERSIONS)),
            excluded=("0.15.0",),
            control_model="tiny:qwen2",
            suite=SUITE,
        ),
        records={record.version: record for record in records},
        finding=Finding(
            status=Status.FOUND,
            message=f"fixed between {last_before} and {first_after}",
            answer=fix,
            changes=(fix,),
            warnings=(f"0.22.0 {text}",),
        ),
    )
    made.notes.append(text)
    for version in made.records:
        _leave_evidence(run_dir / "trials" / version, version, text)
    path = run_dir / "report.html"
    commit = KeptCommit(sha="0123456789" * 4, title=f"Return all n choices: {text} (#123)")
    compared = KeptComparison(
        last_before=last_before,
        first_after=first_after,
        base=f"v{last_before}",
        head=f"v{first_after}",
        total=2,
        commits=(commit, commit),
        files=("vllm/entrypoints/openai/serving_chat.py",),
    )
    path.write_text(to_html(made, run_dir, comparisons=(compared,)), encoding="utf-8")
    return path


def _rich(record: TrialRecord, text: str) -> TrialRecord:
    """The record with everything that a trial can hold."""
    seen = ParametersSeen(status=ParametersStatus.RECEIVED, sentence="received n=4", sent={"n": 4})
    control = ControlRecord(
        model="tiny:qwen2", outcome=Outcome.PASS, observations=Tally(passes=18), parameters=seen
    )
    asked = tuple(
        VariationRecord(
            name=variation.name,
            outcome=record.outcome,
            signature=text,
            observations=record.observations,
        )
        for variation in SUITE.variations
    )
    return record.model_copy(
        update={
            "build": Build(kind="venv", ref="~/.cache/vbisect/x", digest="sha256:" + "ab" * 32),
            "reported_version": record.version,
            "engine": "V1",
            "size_bytes": 9_400_000_000,
            "parameters": seen,
            "control": control,
            "variations": asked,
            "boots": (record.observations, Tally()),
            "measured": {"latency_median": 0.41, "signatures": {text: 2, f"{text} twice": 1}},
            "notes": (text,),
        }
    )


def _leave_evidence(folder: Path, version: str, text: str) -> None:
    folder.mkdir(parents=True)
    body = {"model": "tiny", "n": 4, "messages": [{"role": "user", "content": text}]}
    request = {"method": "POST", "path": "/v1/chat/completions", "body": body}
    (folder / "request.json").write_text(json.dumps(request, indent=1))
    answer = json.dumps({"choices": [{"index": 0, "text": text}]})
    line = {"n": 4, "status": 200, "seconds": 0.4, "body": answer}
    (folder / "responses.jsonl").write_text((json.dumps(line) + "\n") * 3)
    log = "".join(f"INFO line {number} of {version}: {text}\n" for number in range(3000))
    (folder / "server.log").write_text(log, encoding="utf-8", errors="replace")
    (folder / "environment.json").write_text(
        json.dumps({"packages": ["torch==2.9"] * 40}, indent=1)
    )
