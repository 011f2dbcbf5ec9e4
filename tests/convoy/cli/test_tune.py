"""`convoy tune`: the edit of the configuration file, and refusals before a measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from convoy.cli import main
from serve.config.loading import load_settings
from tests.artifacts import write_artifact

# The quantizer raises these warnings itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def test_the_best_configuration_is_written_with_its_evidence(tmp_path: Path) -> None:
    artifact = str(write_artifact(tmp_path / "a", "a", convolution=True))
    config = tmp_path / "convoy.yaml"
    document = {"engines": str(tmp_path / "store"), "cores": 1, "models": [{"name": "a", "artifact": artifact}]}
    written = "# by hand\n" + yaml.safe_dump(document, sort_keys=False) + "    # the end – of a\n"
    config.write_bytes(written.replace("\n", "\r\n").encode())
    arguments = ["tune", "a", "--slo-p99", "10s", "--seconds", "0", "-c", str(config), "--json"]
    before = config.read_bytes()
    assert CliRunner().invoke(main, [*arguments, "--dry-run"]).exit_code == 0
    assert config.read_bytes() == before
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    chosen = json.loads(done.stdout)["chosen"]
    model = load_settings(config).models[0]
    assert (model.engine, model.precision, model.threads, model.max_batch, model.target_ms) == tuple(chosen.values())
    text = config.read_bytes().decode()
    assert text.startswith("# by hand\r\n")
    assert text.endswith("\r\n    # the end – of a\r\n")
    remaining = iter(text.splitlines(keepends=True))
    assert all(line in remaining for line in before.decode().splitlines(keepends=True))
    assert "# convoy tune a --slo-p99 10s" in text
    assert text.count("images/s") == 2


def test_a_second_run_replaces_its_own_remarks_only(tmp_path: Path) -> None:
    config = tmp_path / "convoy.yaml"
    artifacts = [{"name": name, "artifact": str(write_artifact(tmp_path / name, name))} for name in ("a", "b")]
    listed = ", ".join(f"{{name: {entry['name']}, artifact: {entry['artifact']}}}" for entry in artifacts)
    document = f"engines: {tmp_path / 'store'}\ncores: 1\n# by hand\nmodels: [{listed}]\n"
    config.write_text(document)

    def tune(model: str) -> list[str]:
        """The comments of the file after a run."""
        arguments = ["tune", model, "--slo-p99", "10s", "--seconds", "0", "-c", str(config)]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        return [line for line in config.read_text().splitlines() if line.startswith("#")]

    first = tune("a")
    both = tune("b")
    assert both[: len(first)] == first
    noted = ["# by hand", "# convoy tune was slow here", "# chosen: by me", first[1], "# the night before the release"]
    assert first[1].startswith("# convoy tune a --slo-p99 10s")
    config.write_text(config.read_text().replace("\n".join(first[:2]), "\n".join(noted)))
    again = tune("a")
    kept = [comment for comment in noted if comment != first[1]] + both[len(first) :]
    assert again[: len(kept)] == kept
    assert again[len(kept)].startswith("# convoy tune a --slo-p99 10s")
    assert len(again[len(kept) :]) == len(first[1:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lenet5-mnist", "--slo-p99", "soon"), "is not a time; write 20ms"),
        (("lenet5-mnist", "--slo-p99", "0ms"), "is not a time; write 20ms"),
        (
            ("lenet5-mnist", "--slo-p99", "20\nms"),
            "is not a time; write 20ms",
        ),  # a line break would end the comment in the file
        (("lenet5-mnist", "--slo-p99", "9" * 400 + "s"), "is not a time; write 20ms"),
        (("lenet5-mnits", "--slo-p99", "20ms"), "did you mean 'lenet5-mnist'"),
    ],
)
def test_invalid_arguments_are_refused(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["tune", *arguments, "-c", str(tmp_path / "convoy.yaml")])
    assert done.exit_code != 0
    assert words in done.output
    assert not (tmp_path / "convoy.yaml").exists()


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("convoy.yaml", "gateways: 1\n", "does not name the model 'lenet5-mnist'; add it under models"),
        ("none/convoy.yaml", None, "cannot be written; name a file in a folder"),
    ],
)
def test_a_file_that_cannot_be_changed_is_refused_before_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str | None, words: str
) -> None:
    monkeypatch.setattr("serve.planning.tuning.explore", lambda *_: pytest.fail("measured"))
    config = tmp_path / file
    if text is not None:
        config.write_text(text)
    done = CliRunner().invoke(main, ["tune", "lenet5-mnist", "--slo-p99", "20ms", "-c", str(config)])
    assert done.exit_code == 1
    assert words in done.output
