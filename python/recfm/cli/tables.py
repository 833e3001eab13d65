"""`recfm encode` and `recfm doctor`."""

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from recfm.cli.common import Json, print_json, stdout_console
from recfm.config import parse, read_toml
from recfm.errors import SchemaError


def encode(
    events: Annotated[str, tyro.conf.Positional],
    *,
    schema: Path,
    out: Path,
    train: str | None = None,
    memory: str = "2GiB",
    json: Json = False,
) -> None:
    """An event table of any size as ids on disk: streamed, within a memory budget, ready for batches.

    Args:
        events: Parquet file, folder of them or glob.
        schema: TOML file with a [schema] section, as for `recfm loop`.
        out: The folder to make; must not exist yet.
        train: Parquet of the training rows, to learn vocabularies and statistics from; by default all events,
            which lets counts of later periods decide the ids.
        memory: What reading, counting and encoding may take.
        json: Print the result as JSON.
    """
    from recfm.data.encode import Encoder
    from recfm.new_folder import refuse_existing
    from recfm.progress import rows_bar
    from recfm.schema import Schema

    refuse_existing(out)  # before minutes of fitting
    sections = read_toml(schema)
    columns = parse(Schema, sections.get("schema", sections), what=str(schema), error=SchemaError)
    with rows_bar(Console(stderr=True)) as on_rows:
        encoder = Encoder(columns).fit(train or events, memory=memory, on_rows=on_rows)
        folder = encoder.encode(events, out, memory=memory, on_rows=on_rows)
    sizes = {column.name: column.rows for column in (*folder.layout.categorical, *folder.layout.tokens)}
    if json:
        print_json({"folder": str(out), "rows": len(folder), "bytes": folder.nbytes, "table_rows": sizes})
    else:
        console = stdout_console()
        for name, rows in sizes.items():
            console.print(f"{name}: {rows:,} embedding rows", markup=False)
        console.print(f"{out}: {len(folder):,} events, {folder.nbytes / 2**20:,.1f} MiB", markup=False)


def doctor(*, json: Json = False) -> None:
    """What recfm found on this machine: versions, threads, GPU, and what is missing.

    Args:
        json: Print the result as JSON.
    """
    from recfm import doctor as checks

    found = checks.examine()
    if json:
        print_json(found)
    else:
        Console().print(checks.table(found))
