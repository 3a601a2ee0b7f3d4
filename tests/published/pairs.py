"""Small published models, as the library ``transformers`` builds them, and ours, which take over their weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from published.readers import GPT2, Bert, Llama, Vision
from published.sides import Ours, Tensors
from published.translators import T5, Bart, Marian, Whisper
from torch import nn


class Pair(NamedTuple):
    ours: Any
    theirs: Any


def make_pair(side: type[Ours]) -> Pair:
    """Both sides with the same random weights, none of which is zero or one."""
    torch.manual_seed(0)
    ours, theirs = side().eval(), side.published().eval()
    theirs.set_attn_implementation("eager")  # the formula, not a kernel that both sides would share
    with torch.no_grad():
        for weight in theirs.parameters():
            if weight.requires_grad:
                weight += 0.2 * torch.randn_like(weight)
        ours.load_state_dict(ours.translate(trained(theirs)))
    return Pair(ours, theirs)


def trained(module: nn.Module) -> Tensors:
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


SIDES: dict[str, type[Ours]] = {
    "bart": Bart,
    "bert": Bert,
    "gpt2": GPT2,
    "llama": Llama,
    "marian": Marian,
    "t5": T5,
    "vit": Vision,
    "whisper": Whisper,
}
