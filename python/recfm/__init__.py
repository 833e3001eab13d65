"""recfm: train big recommendation models, keep what they learned in the small ones you serve.

Importing it does not load torch: the names that need torch load it when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from recfm.errors import RecfmError
from recfm.schema import Categorical, History, Numeric, Schema, Tokens

if TYPE_CHECKING:
    from recfm.data.batches import Batches
    from recfm.data.encode import Encoder
    from recfm.data.loader import Loader
    from recfm.experiment import run_experiment
    from recfm.fuxictr import from_fuxictr
    from recfm.history.index import HistoryIndex
    from recfm.history.log import EmbeddingLog
    from recfm.history.tap import Tap
    from recfm.loop import LoopConfig
    from recfm.models.count import count
    from recfm.models.deepfm import DeepFM
    from recfm.models.dnn import DNN
    from recfm.models.wukong import Wukong
    from recfm.models.zoo import build_model
    from recfm.train.config import TrainConfig
    from recfm.train.trainer import Trainer

_LAZY = {
    "Batches": "recfm.data.batches",
    "Encoder": "recfm.data.encode",
    "Loader": "recfm.data.loader",
    "HistoryIndex": "recfm.history.index",
    "EmbeddingLog": "recfm.history.log",
    "Tap": "recfm.history.tap",
    "DNN": "recfm.models.dnn",
    "DeepFM": "recfm.models.deepfm",
    "Wukong": "recfm.models.wukong",
    "build_model": "recfm.models.zoo",
    "count": "recfm.models.count",
    "Trainer": "recfm.train.trainer",
    "TrainConfig": "recfm.train.config",
    "LoopConfig": "recfm.loop",
    "run_experiment": "recfm.experiment",
    "from_fuxictr": "recfm.fuxictr",
}

__all__ = [
    "Schema", "Categorical", "Numeric", "Tokens", "History",
    "Encoder", "Batches", "Loader", "HistoryIndex", "EmbeddingLog", "Tap",
    "build_model", "Wukong", "DNN", "DeepFM", "count", "Trainer", "TrainConfig",
    "LoopConfig", "run_experiment", "from_fuxictr",
    "RecfmError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'recfm' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
