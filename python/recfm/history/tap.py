"""Read a model's intermediate activations without touching its code (LoopFM section 3.1)."""

import difflib
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from recfm.errors import ConfigError


class Tap:
    """Forward hooks on named modules of any PyTorch model.

    After each forward pass `activations()` is what those modules put out, flattened and joined: [B, D] with D the
    sum of their widths. The gradient is cut (stop-gradient), so nothing built on a tap can change the model.

    Args:
        model: Any module.
        layers: Names as in `model.named_modules()`, for example "mlp.hidden_0".

    Raises:
        ConfigError: The model has no module of that name.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> with Tap(model, ["1"]) as tap:
        ...     _ = model(torch.ones(2, 3))
        ...     tap.activations().shape
        torch.Size([2, 4])
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        modules = dict(model.named_modules())
        modules.pop("", None)
        if isinstance(layers, str) or not layers or len(set(layers)) < len(layers):
            raise ConfigError(f"taps are {layers!r}: give a list of at least one layer name, each once")
        for name in layers:
            if name not in modules:
                near = ", ".join(difflib.get_close_matches(name, modules, n=3) or list(modules)[:10])
                raise ConfigError(f"the model has no layer '{name}' to tap; the nearest are: {near}")
        self.layers = tuple(layers)
        self._seen: dict[str, Tensor] = {}
        # Each pass starts empty, so that a layer which did not run is missed and not taken from an earlier pass.
        self._handles: list[Any] = [model.register_forward_pre_hook(lambda *_: self._seen.clear())]
        self._handles += [modules[name].register_forward_hook(self._hook(name)) for name in self.layers]

    def _hook(self, name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or output.ndim == 0:
                found = "one number" if isinstance(output, Tensor) else f"a {type(output).__name__}"
                raise ConfigError(f"layer '{name}' puts out {found}, not a tensor [B, ...]: tap another one")
            self._seen[name] = output.detach().reshape(len(output), -1)

        return keep

    def activations(self) -> Tensor:
        """e [B, D] of the last forward pass, detached; each pass can be read once.

        Raises:
            ConfigError: A tapped layer did not run since the last read.
        """
        missing = [name for name in self.layers if name not in self._seen]
        if missing:
            raise ConfigError(
                f"layer '{missing[0]}' did not run in the last forward pass: run the model first"
            )
        joined = torch.cat([self._seen[name] for name in self.layers], dim=1)
        self._seen.clear()
        return joined

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> "Tap":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
