"""The README's table of speeds, drawn from the newest result of each theme: `python benches/speed_table.py`."""

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROWS = {
    "history": {
        "history.build.polars": "history of 5 M events: sort and a window for each, against Polars `rolling`",
        "history.build.numpy": "the same against NumPy sort to offsets",
        "history.build.duckdb": "the same against DuckDB windows",
        "history.build-memory.numpy": "its memory against NumPy's",
        "history.gather.numpy": "gather [4096, 50, 32] f16 to f32, against NumPy fancy indexing",
        "history.gather.memcpy": "the same against a plain copy of the bytes",
    },
    "hash": {
        "hash.columns.polars": "hash 1 M rows x 26 columns to buckets, against Polars",
        "hash.columns.polars-raw": "the same against Polars' bare 64-bit hashes",
        "hash.vocab.polars": "vocabularies of the same, fit and encode, against Polars rank",
    },
    "batch": {
        "batch.shuffled.numpy-take": "shuffled batches of 4096 x 27 ids from memory, against NumPy take",
        "batch.shuffled.per-row-dataloader": "the same against a per-row DataLoader",
        "batch.shuffled.index-select": "the same against torch `index_select` of the ids alone",
        "batch.streamed.rows": "the same from disk, against 10 M rows/s",
        "batch.streamed.parquet-row-groups": "the same against shuffled Parquet row groups",
    },
    "metrics": {
        "metrics.gauc.pandas": "gAUC of 5 M rows, 500 k users, against pandas and scikit-learn",
        "metrics.auc.sklearn": "AUC of 5 M rows, against scikit-learn",
    },
    "train": {
        "train.dnn.torch-rechub": "an epoch of DNN at Frappe settings, fp32, against torch-rechub",
        "train.dnn.deepctr-torch": "the same against deepctr-torch",
        "train.dcnv2.torch-rechub": "an epoch of DCNv2, against torch-rechub",
        "train.dcnv2.deepctr-torch": "the same against deepctr-torch",
        "train.wukong.eager": "an epoch of Wukong, against a plain eager PyTorch port",
        "train.dnn.matmul": "DNN's floating-point rate against bare matrix products",
        "train.dcnv2.matmul": "DCNv2's",
        "train.wukong.matmul": "Wukong's",
        "train.dnn.bf16": "a DNN step under bf16 autocast against fp32, on a CPU without bf16 instructions",
    },
    "embedding": {
        "embedding.step.torch-sparse-adam": "row-wise Adam, 10 M rows x 16, 4096 x 26 ids: against torch SparseAdam",
        "embedding.step.torch-sparse-adagrad": "row-wise AdaGrad, the same: against torch's sparse Adagrad",
        "embedding.step.torch-dense-adam": "row-wise AdaGrad, 1 M rows: against torch dense Adam",
        "embedding.flat.smaller-table": "a step on 100 M rows against 1 M rows, skewed ids (1 is flat)",
        "embedding.flat-uniform.smaller-table": "the same with uniform ids",
    },
    "scale": {
        "scale.resident.limit": "100 M events: encode, index, one epoch; memory against 4 GiB",
        "scale.cost-per-event.smallest": "cost of an event at 1 M against 100 M events (1 is flat)",
    },
}


def newest(theme: str) -> dict[str, Any]:
    """The newest result of a theme."""
    document: dict[str, Any] = json.loads(max(RESULTS.glob(f"{theme}_*.json")).read_text())
    return document


def table() -> str:
    """Markdown: what, ours, peer, ratio, target, command."""
    lines = ["| what | ours | peer | ratio | target |", "| --- | ---: | ---: | ---: | ---: |"]
    for theme, wanted in ROWS.items():
        found = {row["name"]: row for row in newest(theme)["results"]}
        for name, words in wanted.items():
            row = found[name]
            target = (
                "-"
                if row["target"] is None
                else f"{row['target']:g}x {'met' if row['met'] else '**missed**'}"
            )
            ours, peer = (_number(row[side], row["unit"]) for side in ("ours", "peer"))
            lines.append(f"| {words} | {ours} | {peer} | {_short(row['ratio'])}x | {target} |")
    return "\n".join(lines)


def _number(value: float, unit: str) -> str:
    if unit == "rows/s":
        return f"{_short(value / 1e6)} M rows/s" if value >= 1e5 else f"{value:,.0f} rows/s"
    if unit == "bytes/s":
        return f"{_short(value / 1e9)} GB/s"
    return f"{_short(value)} {unit}"


def _short(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
