"""Write the rows of a report as CSV that a spreadsheet opens safely. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

_FORMULA: Final = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")  # full-width = + - @ are formulas to some spreadsheets


def csv_text(group_by: Sequence[str], rows: Sequence[Mapping[str, Any]], totals: Mapping[str, Any]) -> str:
    """Return rows as CSV (RFC 4180): a header, and a column for each number; nested names are joined by `_`.

    `totals`: has each number of a row. A cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    out = io.StringIO()
    columns = list(_flat({**dict.fromkeys(group_by), **totals}))
    writer = csv.DictWriter(out, columns, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in _flat(row).items()} for row in rows)
    return out.getvalue()


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        found |= _flat(value, f"{before}{name}_") if isinstance(value, dict) else {f"{before}{name}": value}
    return found


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
