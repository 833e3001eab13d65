"""Views of a layout that a part of a model reads."""

import dataclasses
from collections.abc import Collection

from recfm.layout import Column, Layout


def showing(layout: Layout, names: Collection[str]) -> Layout:
    """The same layout, so the same places in a batch, of which a "vm" viewer sees the features of these names only."""

    def show(columns: tuple[Column, ...]) -> tuple[Column, ...]:
        return tuple(
            dataclasses.replace(column, seen_by="both" if column.name in names else "fm")
            for column in columns
        )

    return Layout(
        categorical=show(layout.categorical), tokens=show(layout.tokens), numeric=show(layout.numeric)
    )


def names_of(layout: Layout) -> list[str]:
    """Every feature's name, in the order of a batch."""
    return [column.name for column in (*layout.categorical, *layout.tokens, *layout.numeric)]
