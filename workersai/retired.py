"""Models that Cloudflare has retired, and what replaces each.

The list is that of Cloudflare's changelog of 2026-05-08 ("Planned model deprecations on Workers AI"). It names a
successor for Kimi K2.5, three recommended replacements for all others, and the variants that stay.
"""

from __future__ import annotations

import re

_RETIRED_ON = "2026-05-30"
_GLM = "@cf/zai-org/glm-4.7-flash"
_GEMMA = "@cf/google/gemma-4-26b-a4b-it"
_KIMI = "@cf/moonshotai/kimi-k2.6"
_LLAMA_8B = "@cf/meta/llama-3.1-8b-instruct-fast"
_LLAMA_70B = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"

SUCCESSORS: dict[str, str] = {
    "@cf/moonshotai/kimi-k2.5": _KIMI,
    "@hf/meta-llama/meta-llama-3-8b-instruct": _LLAMA_8B,
    "@cf/meta/llama-3-8b-instruct": _LLAMA_8B,
    "@cf/meta/llama-3-8b-instruct-awq": _LLAMA_8B,
    "@cf/meta/llama-3.1-8b-instruct": _LLAMA_8B,
    "@cf/meta/llama-3.1-8b-instruct-awq": _LLAMA_8B,
    "@cf/meta/llama-3.1-70b-instruct": _LLAMA_70B,
    "@cf/meta/llama-2-7b-chat-int8": _LLAMA_8B,
    "@cf/meta/llama-2-7b-chat-fp16": _LLAMA_8B,
    "@cf/mistral/mistral-7b-instruct-v0.1": _GLM,
    "@hf/mistral/mistral-7b-instruct-v0.2": _GLM,
    "@hf/google/gemma-7b-it": _GEMMA,
    "@cf/google/gemma-3-12b-it": _GEMMA,
    "@hf/nousresearch/hermes-2-pro-mistral-7b": _GLM,
    "@cf/microsoft/phi-2": _GLM,
    "@cf/defog/sqlcoder-7b-2": _GLM,
    "@cf/unum/uform-gen2-qwen-500m": _GEMMA,
    "@cf/facebook/bart-large-cnn": _GLM,
}
"""Retired models, each with the model to use instead: of the same family if one stays, else of those recommended."""

_NAMES = re.compile(r"@[ch]f/[\w.-]{1,100}/[\w.-]{0,100}\w")


def retirement_advice(message: str, *, is_retired: bool) -> str | None:
    """Returns what to do about a retired model that a message names; None if it names none.

    Args:
        message: The service's own words.
        is_retired: Whether the service said that the model is retired, so that advice is due for any model.
    """
    for name in _NAMES.findall(message):
        if name in SUCCESSORS:
            return f"Cloudflare retired {name} on {_RETIRED_ON}. Use {SUCCESSORS[name]} instead."
    if is_retired:
        return f"The model was retired. Use another one, such as {_GLM}, {_GEMMA} or {_LLAMA_70B}."
    return None
