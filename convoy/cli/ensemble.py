"""`convoy ensemble`: chooses and fits ensembles and cascades on a validation set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.options import config_option, json_option, settings_of
from convoy.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from serve.config.schema import Settings
    from serve.planning.ensemble_evaluation import ValidationSet, Voter

data_option = click.option(
    "--data", default="cifar10", show_default=True,
    help="Validation set: cifar10, mnist, or a folder with one folder of images per label.",
)  # fmt: skip


@click.group()
def ensemble() -> None:
    """Choose and fit ensembles and cascades on a validation set.

    \b
    convoy ensemble suggest --data cifar10     sets of models worth combining
    convoy ensemble fit NAME -c convoy.yaml    weights or thresholds of a configured one
    """


@ensemble.command()
@config_option
@data_option
@click.option(
    "--model",
    "-m",
    "names",
    multiple=True,
    help="Candidate; repeatable.  [default: the models trained on the data set]",
)
@click.option(
    "--budget-ms", type=float, default=float("inf"), help="Largest engine time of an image.  [default: no limit]"
)
@click.option("--most", type=click.IntRange(1), default=3, show_default=True, help="Largest number of members.")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Also try candidates on the mirrored image.")
@json_option
def suggest(
    config: Path | None,
    data: str,
    names: tuple[str, ...],
    budget_ms: float,
    most: int,
    flip: bool,
    as_json: bool,
) -> None:
    """Find the Pareto front of sets of models: accuracy against engine time, predicted and measured.

    \b
    convoy ensemble suggest --data cifar10 --budget-ms 10
    convoy ensemble suggest -c convoy.yaml --data validation/ --most 2 --json
    """
    from models.ensembles.suggest import Option, pareto_front, select_greedily
    from serve.planning.ensemble_evaluation import engine_ms

    settings = settings_of(config, None, {})
    voters = _candidates(settings, data, names, flip)
    validation_set = _validation_set(data, voters)
    by_name = {_title(voter): voter for voter in voters}
    options = [
        Option(name, voter.scores(validation_set.images), engine_ms([voter], validation_set.images))
        for name, voter in by_name.items()
    ]
    front = pareto_front(select_greedily(options, validation_set.labels, budget_ms, most))
    if not front:
        raise ConfigError(
            f"no model runs within {budget_ms:g} ms; the fastest needs {min(o.cost for o in options):.2f} ms: raise --budget-ms"
        )
    documents = [
        {
            "members": [{"model": by_name[name].name, "views": list(by_name[name].views)} for name in choice.members],
            "accuracy": round(choice.accuracy, 5),
            "predicted_ms": round(choice.cost, 3),
            "measured_ms": round(engine_ms([by_name[name] for name in choice.members], validation_set.images), 3),
        }
        for choice in front
    ]
    if as_json:
        click.echo(json.dumps({"images": len(validation_set.labels), "front": documents}, indent=2))
        return
    import yaml

    table = Table("members", "accuracy", "predicted ms", "measured ms", box=None)
    for choice, document in zip(front, documents, strict=True):
        times = (f"{document['predicted_ms']:.2f}", f"{document['measured_ms']:.2f}")
        table.add_row(" + ".join(choice.members), f"{choice.accuracy:.2%}", *times)
    Console().print(f"{len(validation_set.labels)} validation images; engine time of one image", table, sep="\n")
    click.echo(
        yaml.safe_dump({"ensembles": [{"name": "suggested", "members": documents[-1]["members"]}]}, sort_keys=False)
    )


@ensemble.command()
@click.argument("name")
@config_option
@data_option
@click.option("--within", type=click.FloatRange(0, 100), default=0.0, show_default=True,
              help="For a cascade: percentage points of accuracy that it may lose against its last stage.")  # fmt: skip
@click.option("--budget-ms", type=float, help="For a cascade: largest engine time of an image, instead of --within.")
@click.option("--measure", type=click.Choice(["margin", "entropy"]), default="margin", show_default=True,
              help="For a cascade: the measure of confidence that thresholds apply to.")  # fmt: skip
@json_option
def fit(
    name: str, config: Path | None, data: str, within: float, budget_ms: float | None, measure: Any, as_json: bool
) -> None:
    """Fit the weights of an ensemble, or the thresholds of a cascade, and print its configuration.

    \b
    convoy ensemble fit cifar10-three -c convoy.yaml --data cifar10
    convoy ensemble fit cifar10-cascade -c convoy.yaml --within 0.2
    """
    import yaml

    settings = settings_of(config, None, {})
    ensembles = {ensemble.name: ensemble for ensemble in settings.ensembles}
    cascades = {cascade.name: cascade for cascade in settings.cascades}
    if name in ensembles:
        found = _fit_ensemble(settings, name, data)
    elif name in cascades:
        found = _fit_cascade(settings, name, data, within, budget_ms, measure)
    else:
        known = ", ".join([*ensembles, *cascades]) or "none in this configuration"
        raise NotFound(f"{name!r} is neither an ensemble nor a cascade; known: {known}")
    click.echo(json.dumps(found, indent=2) if as_json else yaml.safe_dump(found, sort_keys=False))


def _fit_ensemble(settings: Settings, name: str, data: str) -> dict[str, Any]:
    import numpy as np

    from models.ensembles.combine import combine
    from models.ensembles.weights import fit_weights

    config = next(ensemble for ensemble in settings.ensembles if ensemble.name == name)
    voters = [_voter(settings, member.model, member.views, member.calibrated) for member in config.members]
    validation_set = _validation_set(data, voters)
    scores = np.stack([voter.scores(validation_set.images) for voter in voters])
    weights = fit_weights(scores, validation_set.labels)
    kept = weights > 0
    fitted = combine(scores[kept], weights[kept], "mean_probability").argmax(axis=1)
    equal = combine(scores, np.ones(len(scores)), "mean_probability").argmax(axis=1)
    members = [
        member.model_dump(mode="json") | {"weight": round(float(weight), 4)}
        for member, weight in zip(config.members, weights, strict=True)
        if weight > 0
    ]
    return {
        "ensembles": [{"name": name, "combine": "mean_probability", "members": members}],
        "held_out": {
            "images": len(validation_set.labels),
            "accuracy": float((fitted == validation_set.labels).mean()),
            "accuracy_with_equal_weights": float((equal == validation_set.labels).mean()),
        },
    }


def _fit_cascade(
    settings: Settings, name: str, data: str, within: float, budget_ms: float | None, measure: Any
) -> dict[str, Any]:
    from models.ensembles.thresholds import Candidate, fit_for_accuracy, fit_for_budget
    from serve.planning.ensemble_evaluation import engine_ms

    config = next(cascade for cascade in settings.cascades if cascade.name == name)
    if any(stage.model in {ensemble.name for ensemble in settings.ensembles} for stage in config.stages):
        raise ConfigError(
            f"{name}: only stages that are models can be fitted, not ensembles; set those thresholds by hand"
        )
    voters = [_voter(settings, stage.model, stage.views, stage.calibrated) for stage in config.stages]
    validation_set = _validation_set(data, voters)
    stages = [
        Candidate(_title(voter), voter.scores(validation_set.images), engine_ms([voter], validation_set.images))
        for voter in voters
    ]
    last = float((stages[-1].scores.argmax(axis=1) == validation_set.labels).mean())
    if budget_ms is None:
        fitted = fit_for_accuracy(stages, validation_set.labels, last - within / 100, measure)
    else:
        fitted = fit_for_budget(stages, validation_set.labels, budget_ms, measure)
    documents = [
        {key: value for key, value in stage.model_dump(mode="json").items() if key not in ("margin", "entropy")}
        for stage in config.stages
    ]
    for document, threshold in zip(documents, fitted.thresholds, strict=False):
        document[measure] = round(threshold, 5)
    return {
        "cascades": [{"name": name, "stages": documents}],
        "held_out": {
            "images": len(validation_set.labels),
            "accuracy": fitted.accuracy,
            "accuracy_of_the_last_stage": last,
            "asked": [round(share, 4) for share in fitted.shares],
            "engine_ms": round(fitted.cost, 3),
            "engine_ms_of_the_last_stage": round(stages[-1].cost, 3),
        },
    }


def _candidates(settings: Settings, data: str, names: tuple[str, ...], flip: bool) -> list[Voter]:
    """The named models, or those trained on this data set, on the image and on its mirror image."""
    from models.artifact import Artifact

    if not names:
        of_data = [model.name for model in settings.models if Artifact.load(model.folder).manifest.dataset == data]
        names = tuple(of_data)
    if not names:
        raise ConfigError(f"no configured model was trained on {data!r}; name the candidates with --model")
    voters = [_voter(settings, name, ("identity",), False) for name in names]
    return voters + ([_voter(settings, name, ("flip",), False) for name in names] if flip else [])


def _voter(settings: Settings, name: str, views: Any, calibrated: bool) -> Voter:
    from serve.config.thread_plan import plan_threads
    from serve.planning.ensemble_evaluation import Voter

    model = next((served for served in settings.models if served.name == name), None)
    if model is None:
        raise NotFound(f"unknown model {name!r}; known: {', '.join(served.name for served in settings.models)}")
    return Voter(model, views, calibrated, model.threads or plan_threads(settings).local, settings.limits.pixels)


def _validation_set(data: str, voters: list[Voter]) -> ValidationSet:
    from serve.planning.ensemble_evaluation import load_validation_set

    if len({voter.labels for voter in voters}) > 1:
        raise ConfigError("the models have different labels; name models of the same labels with --model")
    return load_validation_set(data, voters[0].labels)


def _title(voter: Voter) -> str:
    return voter.name if voter.views == ("identity",) else f"{voter.name} {' '.join(voter.views)}"
