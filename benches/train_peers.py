"""What `bench_train.py` trains beside: torch-rechub, deepctr-torch, and a Wukong in plain eager PyTorch.

Each is built at the sizes of ours, starts from weights drawn as ours are, and trains by the loop that its own users
run, with L2 on whole embedding tables scaled so that its gradient is that of ours.
"""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from recfm.models.layers import initialise

Table = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Ids [n, columns] from 2 up, labels [n]."""


@dataclass(kw_only=True)
class Work:
    """What every side is asked to train."""

    name: str
    columns: list[str]
    rows: tuple[int, ...]
    """Of each column's embedding table."""
    settings: dict[str, Any]
    """Of our model of that name."""
    train: dict[str, Any]
    """Of our trainer."""
    init: dict[str, Any]
    """How weights are drawn: arguments of `initialise`."""

    @property
    def dim(self) -> int:
        return int(self.settings["dim"])

    @property
    def l2(self) -> float:
        return float(self.train["embedding_l2"])

    @property
    def batch_size(self) -> int:
        return int(self.train["batch_size"])


@dataclass
class Side:
    """A fresh model, its training for so many epochs, and its predictions."""

    model: nn.Module
    fit: Callable[[int], Any]
    predict: Callable[[Table], NDArray[np.float64]]

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


def torch_rechub(work: Work, train: Table, seed: int) -> Side:
    """CTRTrainer's epochs over its own DataLoader; it has no plain DNN: its embedding layer under its MLP."""
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.basic.layers import MLP, EmbeddingLayer
    from torch_rechub.models.ranking import DCNv2
    from torch_rechub.trainers import CTRTrainer
    from torch_rechub.utils.data import DataGenerator

    torch.manual_seed(seed)
    sizes = zip(work.columns, work.rows, strict=True)
    features = [SparseFeature(column, rows, embed_dim=work.dim) for column, rows in sizes]
    widths = {"dims": list(work.settings["hidden"]), "dropout": work.settings["dropout"]}

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.mlp = EmbeddingLayer(features), MLP(work.dim * len(features), **widths)

        def forward(self, x: dict[str, Tensor]) -> Tensor:
            return self.mlp(self.embedding(x, features, squeeze_dim=True)).squeeze(1).sigmoid()

    if work.name == "dnn":
        model: nn.Module = Plain()
    else:
        crosses = work.settings["cross_layers"]
        model = DCNv2(features, crosses, widths, "parallel", use_low_rank_mixture=False)
    initialise(model, **work.init)
    l2 = {"embedding_l1": 0.0, "embedding_l2": work.l2 / 2, "dense_l1": 0.0, "dense_l2": 0.0}
    adam = {"lr": work.train["learning_rate"], "weight_decay": 0.0}
    trainer = CTRTrainer(model, optimizer_params=adam, regularization_params=l2)
    ids, label = train
    by_name = {column: ids[:, j] for j, column in enumerate(work.columns)}
    few = {column: values[:1] for column, values in by_name.items()}
    held = {"x_val": few, "y_val": label[:1], "x_test": few, "y_test": label[:1]}
    loader, _, _ = DataGenerator(by_name, label).generate_dataloader(**held, batch_size=work.batch_size)

    def fit(epochs: int) -> None:
        for _ in range(epochs):
            trainer.train_one_epoch(loader)

    def predict(table: Table) -> NDArray[np.float64]:
        model.eval()
        x = {column: torch.from_numpy(table[0][:, j].copy()) for j, column in enumerate(work.columns)}
        with torch.inference_mode():
            return model(x).double().numpy()

    return Side(model, fit, predict)


def deepctr_torch(work: Work, train: Table, seed: int) -> Side:
    """Its `fit`; WDL without a wide part is a DNN. It sums the loss over the batch, so L2 is scaled alike."""
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import DCN, WDL

    sizes = zip(work.columns, work.rows, strict=True)
    features = [SparseFeat(column, rows, embedding_dim=work.dim) for column, rows in sizes]
    common: dict[str, Any] = {
        "dnn_hidden_units": tuple(work.settings["hidden"]),
        "dnn_dropout": work.settings["dropout"],
        "dnn_use_bn": work.settings["batch_norm"],
        "l2_reg_embedding": work.l2 / 2 * work.batch_size,
        "l2_reg_linear": 0.0,
        "seed": seed,
    }
    if work.name == "dnn":
        model = WDL([], features, **common)
    else:
        crosses = work.settings["cross_layers"]
        matrix = {"cross_num": crosses, "cross_parameterization": "matrix", "l2_reg_cross": 0.0}
        model = DCN([], features, **matrix, **common)
    torch.manual_seed(seed)
    initialise(model, **work.init)  # its own deviation of 1e-4 for every weight learns nothing at first
    adam = torch.optim.Adam(model.parameters(), work.train["learning_rate"])
    model.compile(adam, "binary_crossentropy")
    model.history.epoch = []  # missing where no Keras is
    columns = {column: train[0][:, j] for j, column in enumerate(work.columns)}

    def fit(epochs: int) -> None:
        model.fit(columns, train[1], batch_size=work.batch_size, epochs=epochs, verbose=0)

    def predict(table: Table) -> NDArray[np.float64]:
        x = {column: table[0][:, j] for j, column in enumerate(work.columns)}
        return model.predict(x, work.batch_size)[:, 0]

    return Side(model, fit, predict)


def hidden_layers(inputs: int, widths: Iterable[int], out: int, rate: float, *, norm: bool) -> nn.Sequential:
    """Plain torch modules."""
    layers: list[nn.Module] = []
    for width in widths:
        layers.append(nn.Linear(inputs, width))
        layers += [nn.BatchNorm1d(width)] if norm else []
        layers.append(nn.ReLU())
        layers += [nn.Dropout(rate)] if rate else []
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, out))


class EagerLayer(nn.Module):
    """A Wukong layer the way open ports write it: maps over rows expanded to the batch."""

    def __init__(self, inputs: int, sizes: Any) -> None:
        super().__init__()
        self.shape, out = (-1, sizes.fm_rows, sizes.dim), sizes.fm_rows + sizes.linear_rows
        self.y = nn.Parameter(torch.randn(inputs, sizes.rank) / inputs**0.5)
        self.lcb = nn.Parameter(torch.randn(sizes.linear_rows, inputs) / inputs**0.5)
        self.residual = nn.Parameter(torch.randn(out, inputs) / inputs**0.5) if inputs != out else None
        self.norm_fm = nn.LayerNorm(inputs * sizes.rank)
        self.mlp = hidden_layers(
            inputs * sizes.rank,
            sizes.fm_hidden,
            sizes.fm_rows * sizes.dim,
            sizes.fm_dropout,
            norm=sizes.batch_norm,
        )
        self.norm = nn.LayerNorm(sizes.dim)

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        projected = torch.bmm(x.transpose(1, 2), self.y.expand(rows, -1, -1))
        fmb = self.mlp(self.norm_fm(torch.bmm(x, projected).flatten(1))).view(self.shape)
        lcb = torch.bmm(self.lcb.expand(rows, -1, -1), x)
        residual = x if self.residual is None else torch.bmm(self.residual.expand(rows, -1, -1), x)
        return self.norm(torch.cat([fmb, lcb], dim=1) + residual)


class EagerWukong(nn.Module):
    """Ids [B, n] -> logits [B]."""

    def __init__(self, rows: tuple[int, ...], sizes: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sum(rows), sizes.dim)
        self.register_buffer("starts", torch.tensor([0, *np.cumsum(rows)[:-1]]))
        out = sizes.fm_rows + sizes.linear_rows
        inputs = [len(rows)] + [out] * (sizes.layers - 1)
        self.layers = nn.Sequential(*(EagerLayer(n, sizes) for n in inputs))
        self.top = hidden_layers(out * sizes.dim, sizes.hidden, 1, sizes.dropout, norm=sizes.batch_norm)

    def forward(self, ids: Tensor) -> Tensor:
        return self.top(self.layers(self.embedding(ids + self.starts)).flatten(1)).squeeze(1)


def eager(work: Work, train: Table, seed: int) -> Side:
    """Plain PyTorch from end to end: TensorDataset, DataLoader, Adam, the penalty in the gradient, clipping."""
    from recfm.models.zoo import model_config

    sizes = model_config("wukong", work.settings)
    if sizes.attentive_rows:
        raise SystemExit(
            "the eager Wukong has a static projection: settings with attentive_rows have no peer"
        )
    torch.manual_seed(seed)
    model = EagerWukong(work.rows, sizes)
    initialise(model, **work.init)
    optimizer = torch.optim.Adam(model.parameters(), work.train["learning_rate"])
    data = TensorDataset(torch.from_numpy(train[0]).long(), torch.from_numpy(train[1]))
    loader = DataLoader(data, batch_size=work.batch_size, shuffle=True)

    def fit(epochs: int) -> None:
        model.train()
        for _ in range(epochs):
            for ids, label in loader:
                loss = functional.binary_cross_entropy_with_logits(model(ids), label)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                table = model.embedding.weight
                table.grad.add_(table.detach(), alpha=work.l2)
                nn.utils.clip_grad_norm_(model.parameters(), work.train["clip_norm"])
                optimizer.step()

    def predict(table: Table) -> NDArray[np.float64]:
        model.eval()
        parts = torch.from_numpy(table[0]).long().split(work.batch_size)
        with torch.inference_mode():
            return torch.cat([model(ids) for ids in parts]).double().numpy()

    return Side(model, fit, predict)


PEERS: dict[str, dict[str, Callable[[Work, Table, int], Side]]] = {
    "dnn": {"torch-rechub": torch_rechub, "deepctr-torch": deepctr_torch},
    "dcnv2": {"torch-rechub": torch_rechub, "deepctr-torch": deepctr_torch},
    "wukong": {"eager": eager},
}


def installed(peer: str) -> bool:
    """Whether a peer is here."""
    return peer == "eager" or importlib.util.find_spec(peer.replace("-", "_")) is not None
