"""Export of a ledger to Parquet."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from sqlalchemy.exc import SQLAlchemyError

from convoy.errors import InvalidInput
from serve.experiments.ledger.export import export_parquet
from serve.experiments.ledger.store import Ledger


def test_an_export_does_not_overwrite_the_ledger(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    Ledger(f"sqlite:///{file}").close()
    before = file.read_bytes()
    with pytest.raises(InvalidInput, match="is a database, perhaps the ledger itself; name another file"):
        export_parquet(f"sqlite:///{file}", "nets", file)
    assert file.read_bytes() == before


def test_a_failed_export_leaves_the_previous_file(tmp_path: Path) -> None:
    url, out = f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path / "out.parquet"
    assert export_parquet(url, "nets", out) == 0
    assert parquet.read_table(out).num_rows == 0
    out.write_bytes(b"previous export")
    ledger = Ledger(url)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE predictions RENAME TO elsewhere")
    ledger.close()
    with pytest.raises(SQLAlchemyError):
        export_parquet(url, "nets", out)
    assert out.read_bytes() == b"previous export"
    assert [file.name for file in tmp_path.iterdir() if "parquet" in file.name] == ["out.parquet"]
