"""The variations of the default probe, all asked of one server."""

from __future__ import annotations

from typing import Annotated

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from vbisect.amounts import Amount
from vbisect.probes.interface import Probe
from vbisect.probes.n_choices import Endpoint, NChoicesProbe, NChoicesSettings
from vbisect.probes.refusal import RefusalProbe

_SEED = 20250425
_ABOVE_LIMIT = 16385
"""One above VLLM_MAX_N_SEQUENCES, which vLLM has since 0.19.0."""


def _specifier(text: str) -> str:
    SpecifierSet(text)
    return text


class Variation(BaseModel):
    """One way of asking for ``n`` choices; what it does not say is as in the suite's request.

    With ``refused`` the server has to refuse it. Releases outside of ``specifier`` (PEP 440, empty
    for all) are not asked.
    """

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, Field(pattern=r"^\w[\w=.-]*$", max_length=60)]
    n: int = Field(ge=0, le=10**6)
    stream: bool = False
    seed: int | None = None
    logprobs: bool = False
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False)
    max_tokens: Amount | None = None
    refused: bool = False
    specifier: Annotated[str, AfterValidator(_specifier)] = ""

    def applies_to(self, version: str | None) -> bool:
        """Whether a server of ``version`` is asked; of one unknown, only what is for all."""
        try:
            known = Version(version or "")
        except InvalidVersion:
            return not self.specifier
        return SpecifierSet(self.specifier).contains(known, prereleases=True)


class SuiteSettings(BaseModel):
    """``request`` is what all variations share, its ``n`` apart.

    ``bisect_on`` names the variation that decides, ``None`` for all of them.
    """

    model_config = ConfigDict(frozen=True)

    request: NChoicesSettings
    variations: tuple[Variation, ...] = Field(min_length=1)
    bisect_on: str | None = None

    def decides(self, name: str) -> bool:
        """Whether what the variation comes to decides about a release."""
        return self.bisect_on in (None, name)


def variations(endpoint: Endpoint) -> tuple[Variation, ...]:
    """All variations there are of a request to ``endpoint``; those that must be refused come last.

    vLLM's SamplingParams refuses n = 0 and n > 1 without randomness in every release since 0.7.3
    (https://github.com/vllm-project/vllm/blob/v0.7.3/vllm/sampling_params.py), and n above
    VLLM_MAX_N_SEQUENCES since 0.19.0.
    The generate endpoint reads them in a way of its own; it was seen to refuse them from 0.28.0 on.
    """
    every = ">=0.28" if endpoint is Endpoint.GENERATE else ""
    limit = every or ">=0.19"
    return (
        Variation(name="n=1", n=1),
        Variation(name="n=2", n=2),
        Variation(name="n=8", n=8),
        Variation(name="n=16", n=16),
        Variation(name="stream", n=8, stream=True),
        Variation(name="seed", n=8, seed=_SEED),
        Variation(name="logprobs", n=8, logprobs=True),
        Variation(name="n=0", n=0, refused=True, specifier=every),
        Variation(name="greedy", n=2, temperature=0, refused=True, specifier=every),
        # one token each: a server that does answer this has enough to do
        Variation(name="n=16385", n=_ABOVE_LIMIT, max_tokens=1, refused=True, specifier=limit),
    )


def probe_of(variation: Variation, request: NChoicesSettings) -> Probe:
    """The probe that asks ``variation``, in all else as ``request`` does."""
    changed: dict[str, object] = {
        "n": (variation.n,),
        "stream": variation.stream,
        "seed": variation.seed,
        "logprobs": variation.logprobs,
    }
    if variation.temperature is not None:
        changed["temperature"] = variation.temperature
    if variation.max_tokens is not None:
        changed["max_tokens"] = variation.max_tokens
    asked = request.model_copy(update=changed)
    if variation.refused:
        return RefusalProbe(asked, request.model_copy(update={"n": (1,)}), variation.name)
    return NChoicesProbe(asked, variation.name)
