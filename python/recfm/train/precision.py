"""Autocast: which numbers a forward pass computes in."""

import contextlib
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeAlias

import torch

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: str, precision: Precision) -> AbstractContextManager[Any]:
    """A context in which matrix products run in `precision`; weights stay float32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=_TYPES[precision])
