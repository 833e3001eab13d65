"""Configurations behind recfm's published numbers; every setting was chosen on validation rows, none on test."""

from recfm.loop import LoopConfig
from recfm.models.dnn import DNNConfig
from recfm.models.history_encoder import HistoryEncoderConfig
from recfm.models.wukong import WukongConfig
from recfm.train.trainer import TrainConfig


def ml_1m() -> LoopConfig:
    """MovieLens 1M: `recfm reproduce ml-1m`."""
    return LoopConfig(
        fm_train=TrainConfig(epochs=6, patience=2),
        vm_train=TrainConfig(epochs=10, patience=2),
    )


def ml_100k() -> LoopConfig:
    """MovieLens 100K: `recfm demo`."""
    return LoopConfig(
        length=30,
        fm=WukongConfig(dim=16, fm_hidden=(64,), hidden=(64, 32)),
        fm_history=HistoryEncoderConfig(width=16),
        fm_train=TrainConfig(epochs=10, patience=2, batch_size=512),
        dnn=DNNConfig(dim=8, hidden=(32, 16)),
        history=HistoryEncoderConfig(width=16),
        vm_train=TrainConfig(epochs=10, patience=2, batch_size=512),
    )
