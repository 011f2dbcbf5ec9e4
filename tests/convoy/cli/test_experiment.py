"""`convoy feedback` and `convoy experiment` with a real gateway: feedback files arrive as outcomes in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from convoy.cli import main
from convoy.cli.experiment import print_report
from serve.config.loading import parse_settings
from serve.config.schema import Settings
from serve.experiments.controller import ExperimentController
from serve.experiments.ledger.records import Outcome, Prediction
from serve.experiments.ledger.schema import outcomes
from serve.experiments.ledger.store import Ledger
from serve.http.experiment_routes import name_classes
from tests.artifacts import write_artifact
from tests.serve.listeners import Serving, serving
from tests.waiting import until

ARMS = [{"name": "now", "model": "a"}, {"name": "next", "model": "b"}]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Settings:
    folder = tmp_path_factory.mktemp("cli")
    artifact = str(write_artifact(folder / "quadrants", "quadrants"))
    return parse_settings(
        {
            "listen": dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True)),
            "runtime_dir": str(folder / "node"),
            "models": [{"name": name, "artifact": artifact} for name in ("a", "b")],
            "experiments": [{"name": "nets", "arms": ARMS}],
            "ledger": {"url": f"sqlite:///{folder}/ledger.db", "flush_seconds": 0.01},
        }
    )


@pytest.fixture(scope="module")
def gateway(settings: Settings) -> Iterator[Serving]:
    with serving(settings) as gateway:
        yield gateway


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings.ledger_url)
    yield ledger
    ledger.close()


def convoy(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def stored_outcomes(ledger: Ledger) -> dict[tuple[str, int], tuple[int | None, float | None]]:
    """(class index, reward) of every outcome in the ledger, by request id and position."""
    with ledger.engine.connect() as connection:
        columns = outcomes.c
        rows = connection.execute(select(columns.request_id, columns.position, columns.class_index, columns.reward))
        return {(row[0], row[1]): (row[2], row[3]) for row in rows}


def wait_for(ledger: Ledger, *ids: str) -> None:
    until(lambda: set(ids) <= {name for name, _ in stored_outcomes(ledger)})


def test_labels_of_a_csv_file_are_names_or_indices(gateway: Serving, ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("id,position,label,reward\ncsv-1,,bottom left,\ncsv-1,1,3,\ncsv-2,,,0.5\n")
    done = convoy("feedback", str(file), "--url", gateway.http)
    assert (done.exit_code, done.output) == (0, "3 items accepted\n")
    wait_for(ledger, "csv-1", "csv-2")
    found = stored_outcomes(ledger)
    assert found["csv-1", 0] == (2, None)
    assert found["csv-1", 1] == (3, None)
    assert found["csv-2", 0] == (None, 0.5)


def test_labels_of_a_parquet_file_are_sent_in_several_requests(
    gateway: Serving, ledger: Ledger, tmp_path: Path
) -> None:
    ids = [f"parquet-{number}" for number in range(2500)]
    file = tmp_path / "labels.parquet"
    parquet.write_table(arrow.table({"id": ids, "label": [number % 4 for number in range(2500)]}), file)
    done = convoy("feedback", str(file), "--url", gateway.http)
    assert (done.exit_code, done.output) == (0, "2,500 items accepted\n")
    wait_for(ledger, *ids)
    assert stored_outcomes(ledger)["parquet-7", 0] == (3, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name,label\nx,1\n", "the columns must be id and label"),
        ("id\nx\n", "the columns must be id and label"),
        ("id,label\nx,no such class\n", "no experiment here has a class"),
        ("id,label,position\nx,1,first\n", "position"),
        ("id,label\nx,1\ny,\n", "feedback[1] needs a label"),
    ],
)
def test_an_invalid_file_is_refused_with_the_reason(gateway: Serving, tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "wrong.csv"
    file.write_text(text)
    done = convoy("feedback", str(file), "--url", gateway.http)
    assert done.exit_code == 1
    assert reason in done.output
    assert str(file) in done.output


def test_status_shows_shares(gateway: Serving) -> None:
    done = convoy("experiment", "status", "--url", gateway.http)
    assert done.exit_code == 0
    assert "now 50.0%, next 50.0%" in done.output


def test_an_absent_server_is_an_error_with_the_remedy(free_ports: Callable[[int], list[int]]) -> None:
    done = convoy("experiment", "status", "--url", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert done.exit_code == 1
    assert "start one with: convoy up" in done.output


def test_a_report_fits_on_one_screen(gateway: Serving, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("now", 1, 0, 0, 1)
    rows = [Prediction("nets", f"shown-{number}", 0, *place, number % 8, 0.9, 1.0) for number in range(16)]
    ledger.write(rows, [Outcome(row.request_id, 0, row.class_index, None, 1.0) for row in rows], {}, "writer")
    labels = [f"kind {number}" for number in range(7)]
    print_report(name_classes(ExperimentController(ledger, lambda: "rapl").report("nets").document(), labels))
    shown = capsys.readouterr().out
    assert "Undecided" in shown
    assert "next less control" in shown
    assert "calibration error" in shown
    assert "kind 4" in shown
    assert "and 3 classes on which the arms differ less" in shown
    assert len(shown.splitlines()) < 40
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown


def test_an_export_without_a_ledger_names_the_remedy(tmp_path: Path) -> None:
    config = tmp_path / "convoy.yaml"
    config.write_text("{}")
    done = convoy("experiment", "export", "nets", str(tmp_path / "out.parquet"), "--config", str(config))
    assert done.exit_code == 1
    assert "--ledger" in done.output


@pytest.mark.parametrize("text", ["x: 2026-01-01\n", "&all [*all]\n", "x: .nan\n", "x: !!set {a}\n", 'x: "\\ud800"\n'])
def test_a_definition_that_json_cannot_hold_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    done = CliRunner().invoke(main, ["experiment", "start", str(tmp_path / "a.yaml")])
    assert done.exit_code == 1
    assert "it is sent as JSON" in done.output
