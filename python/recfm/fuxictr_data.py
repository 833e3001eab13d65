"""The files that a FuxiCTR configuration names, read as a benchmark data set."""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from recfm.datasets.ctr import CtrData
from recfm.datasets.ctr_files import Columns, read_csv, read_parquet, verify
from recfm.errors import ConfigError, DataError
from recfm.schema import Numeric, Tokens

if TYPE_CHECKING:
    from recfm.fuxictr import Imported


def read(imported: "Imported", folder: Path) -> CtrData:
    """See `Imported.read`."""
    schema = imported.schema
    columns: dict[str, type[pl.DataType]] = {schema.label: pl.Float32}
    for feature in schema.features:
        kind = (
            pl.Float64
            if isinstance(feature, Numeric)
            else pl.List
            if isinstance(feature, Tokens)
            else pl.String
        )
        columns[feature.name] = kind
    for key in schema.key_columns():
        columns.setdefault(key, pl.String)
    missing = [split for split in ("train", "valid", "test") if split not in imported.data]
    if missing:
        raise ConfigError(
            f"the dataset config names no {' and no '.join(f'{split}_data' for split in missing)}"
        )
    paths = {split: folder / path for split, path in imported.data.items()}
    frames = {path: _frame(path, columns) for path in dict.fromkeys(paths.values())}
    return CtrData(
        name=paths["train"].parent.name,
        train=frames[paths["train"]],
        valid=frames[paths["valid"]],
        test=frames[paths["test"]],
        schema=schema,
        embedding_dim=int(imported.settings.get("dim", 0)),
        acknowledgement="",
        notes=imported.notes,
        checks=verify(list(frames), {}, check=False),
    )


def _frame(path: Path, columns: Columns) -> pl.LazyFrame:
    if not path.is_file():
        raise DataError(f"there is no file '{path}': give the folder that the config's paths start from")
    return read_parquet(path, columns) if path.suffix == ".parquet" else read_csv(path, columns)
