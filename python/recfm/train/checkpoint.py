"""Checkpoints without pickle: a folder each, whole or absent, of which the latest and the best are kept.

<run>/step-00001200/
    model.safetensors       every tensor of the objective: "model.<name>" is what is served
    optimizer.safetensors   the optimisers' tensors, "<optimiser>.<parameter>.<name>", and "rng.<kind>.<rank>"
    state.json              config, position, curve, schedule, layout; see `recfm.train.run`
    manifest.json           bytes and XXH3 of the others; written last
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from recfm import _core
from recfm.errors import ConfigError, SchemaError, StorageError
from recfm.files import check_size, reason, write_whole
from recfm.layout import Layout
from recfm.new_folder import NewFolder
from recfm.storage import CHECKPOINT, read_manifest
from recfm.train.checks import model_layout

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_FIX = "remove the checkpoint to go back to the one before, or restore it from a backup"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return len(self._steps())

    def latest(self) -> Path:
        """The newest one.

        Raises:
            StorageError: There is none.
        """
        steps = self._steps()
        if not steps:
            raise StorageError(f"there is no checkpoint in '{self.folder}': train with this folder first")
        return steps[-1]

    def best(self) -> Path:
        """The one with the best validation metric; the newest where there was no validation.

        Raises:
            StorageError: There is none, or it is damaged.
        """
        latest = self.latest()
        name = read_state(latest)["best_checkpoint"]
        return self.folder / name if name else latest

    def write(
        self,
        step: int,
        objective: nn.Module,
        optimizers: list[Optimizer],
        rng: dict[str, Tensor],
        state: dict[str, Any],
        *,
        best: bool,
    ) -> Path:
        """Write a checkpoint and remove what is neither it nor the best.

        Args:
            step: Steps done.
            objective: Its tensors.
            optimizers: Their states.
            rng: States of random generators, by name.
            state: Plain values; `best_checkpoint` names the best before.
            best: Whether this is the best so far.

        Raises:
            StorageError: The disk refuses; the checkpoints before are as they were.
        """
        folder = self.folder / name_of(step)
        tensors, values = optimizer_tensors(optimizers)
        tensors |= {f"rng.{name}": value for name, value in rng.items()}
        state = {**state, "best_checkpoint": folder.name if best else state["best_checkpoint"]}
        with NewFolder(folder) as new:
            _save(module_tensors(objective), new.temporary / MODEL)
            _save(tensors, new.temporary / OPTIMIZER)
            content = json.dumps({**state, "optimizers": values}, indent=1).encode()
            write_whole(new.temporary / STATE, content, kept=CHECKPOINT.kept)
            files = {name: _identity(new.temporary / name) for name in (MODEL, OPTIMIZER, STATE)}
            new.appear({"files": files}, CHECKPOINT)
        self._prune({folder.name, state["best_checkpoint"]})
        return folder

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step-" + "[0-9]" * 10))

    def _prune(self, keep: set[str | None]) -> None:
        left = list(self.folder.glob(".step-*.tmp"))  # of a killed process: the folder is locked
        for path in [*self._steps(), *left]:
            if path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)


def name_of(step: int) -> str:
    """Name of a checkpoint's folder."""
    return f"step-{step:010d}"


def load_weights(model: nn.Module, folder: str | Path) -> None:
    """Put the weights of a checkpoint into a model, for evaluation or serving.

    Args:
        model: Built as the one that was trained; or the whole objective.
        folder: Of a checkpoint, or of a run: then its best checkpoint.

    Raises:
        StorageError: There is no checkpoint, or it is damaged.
        SchemaError: It was trained on other features or with tables of other sizes.
        ConfigError: It is of another model.
    """
    path = Path(os.path.expanduser(folder))
    path = path if (path / STATE).exists() or path.name.startswith("step-") else Checkpoints(path).best()
    state = read_state(path)
    found = model_layout(model)
    if found is not None and state["layout"] is not None:
        refuse_layout(state["layout"], layout_values(found), path)
    tensors = read_tensors(path, MODEL)
    if type(model).__name__ != state["objective"]:
        tensors = {
            name.removeprefix("model."): tensor
            for name, tensor in tensors.items()
            if name.startswith("model.")
        }
    load_module(model, tensors, path)


# ---- tensors -----------------------------------------------------------------------------------------------------


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; a tensor of two names has the first."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return found


def load_module(module: nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Copy tensors into a module.

    Raises:
        ConfigError: The module has other tensors.
    """
    mine = module_tensors(module)
    for name in sorted(mine.keys() | tensors.keys()):
        sizes = [list(part[name].shape) if name in part else None for part in (tensors, mine)]
        if sizes[0] != sizes[1]:
            there, here = ("absent" if size is None else f"of shape {size}" for size in sizes)
            raise ConfigError(
                f"'{where}' is a checkpoint of another model: '{name}' is {there} in it and {here} in this "
                "model: build the model with the config that was trained"
            )
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(tensors[name])


def optimizer_tensors(optimizers: list[Optimizer]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Tensors of the optimisers' states by name, and what else they hold as plain values."""
    tensors: dict[str, Tensor] = {}
    values = []
    for i, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        plain: dict[str, dict[str, Any]] = {}
        for parameter, entries in state["state"].items():
            plain[str(parameter)] = {}
            for name, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"{i}.{parameter}.{name}"] = value.detach()
                else:
                    plain[str(parameter)][name] = value
        values.append({"state": plain, "param_groups": state["param_groups"]})
    return tensors, values


def load_optimizers(
    optimizers: list[Optimizer], tensors: dict[str, Tensor], values: list[dict[str, Any]]
) -> None:
    """Put states back that `optimizer_tensors` took."""
    for i, (optimizer, plain) in enumerate(zip(optimizers, values, strict=True)):
        state: dict[int, dict[str, Any]] = {int(p): dict(entries) for p, entries in plain["state"].items()}
        for key, tensor in tensors.items():
            owner, _, rest = key.partition(".")
            if owner == str(i):
                parameter, _, name = rest.partition(".")
                state[int(parameter)][name] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": plain["param_groups"]})


# ---- files -------------------------------------------------------------------------------------------------------


def read_state(folder: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint, checked.

    Raises:
        StorageError: There is no checkpoint, or it is damaged.
    """
    state: dict[str, Any] = json.loads(_checked(folder, STATE).read_bytes())
    return state


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """A safetensors file of a checkpoint, checked.

    Raises:
        StorageError: There is no checkpoint, or it is damaged.
    """
    return load_file(_checked(folder, name))


def _checked(folder: Path, name: str) -> Path:
    files = read_manifest(folder, CHECKPOINT)["files"]
    path = folder / name
    check_size(path, files[name]["bytes"], what="checkpoint file", error=StorageError, fix=_FIX)
    try:
        found = _identity(path)
    except OSError as error:
        raise StorageError(f"'{path}' cannot be read: {reason(error)}") from None
    if found != files[name]:
        raise StorageError(f"checkpoint file '{path}' does not match its checksum: it is damaged; {_FIX}")
    return path


def _identity(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    content = np.memmap(path, np.uint8, mode="r") if size else np.empty(0, np.uint8)
    return {"bytes": size, "xxh3": f"{_core.checksum(content):016x}"}


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        raise StorageError(f"cannot write '{path}': {why}; {CHECKPOINT.kept}") from None


# ---- what a checkpoint fits --------------------------------------------------------------------------------------


def layout_values(layout: Layout) -> dict[str, list[dict[str, Any]]]:
    """A layout as plain values."""
    return {
        kind: [dataclasses.asdict(column) for column in getattr(layout, kind)]
        for kind in ("categorical", "tokens", "numeric")
    }


def refuse_layout(
    saved: dict[str, list[dict[str, Any]]], mine: dict[str, list[dict[str, Any]]], where: Path
) -> None:
    """Refuse a checkpoint of another schema or of vocabularies of other sizes.

    Raises:
        SchemaError: Naming the first column that differs.
    """
    for kind in saved:
        there, here = ({column["name"]: column for column in part[kind]} for part in (saved, mine))
        for name in [*there, *here]:
            if name not in there or name not in here:
                has = "has" if name in there else "lacks"
                raise SchemaError(
                    f"'{where}' is a checkpoint of another schema: it {has} the {kind} column '{name}', which "
                    f"{'is not here' if name in there else 'is here'}: use the schema that was trained"
                )
            if there[name] != here[name]:
                what = [key for key in here[name] if there[name].get(key) != here[name][key]]
                key = "rows" if "rows" in what else what[0]
                raise SchemaError(
                    f"'{where}' is a checkpoint of another vocabulary or schema: column '{name}' has {key} "
                    f"{there[name].get(key)} in it and {here[name][key]} here: use the encoder that it was "
                    "trained with"
                )
        if list(there) != list(here):
            raise SchemaError(f"'{where}' has its {kind} columns in another order: {', '.join(there)}")
