"""Commands that choose and fit ensembles and cascades on held-out labels."""

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
    help="Held-out labels: cifar10, mnist, or a folder with a folder of images per label.",
)  # fmt: skip


@click.group()
def ensemble() -> None:
    """Choose and fit ensembles and cascades on held-out labels."""


@ensemble.command()
@config_option
@data_option
@click.option(
    "--model", "-m", "names", multiple=True, help="Candidate; may be repeated.  [default: all that fit the data]"
)
@click.option("--budget-ms", type=float, default=float("inf"), help="Most engine time of an image.  [default: none]")
@click.option("--most", type=click.IntRange(1), default=3, show_default=True, help="Most members of a set.")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Candidates with their mirror image, too.")
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
    """Find the sets of models that nothing cheaper matches, with predicted and measured engine time.

    \b
    convoy ensemble suggest --data cifar10 --budget-ms 10
    convoy ensemble suggest -c convoy.yaml --data held-out/ --most 2 --json
    """
    from models.ensembles.suggest import Option, pareto_front, select_greedily
    from serve.planning.ensemble_evaluation import engine_ms

    settings = settings_of(config, None, {})
    voters = _candidates(settings, data, names, flip)
    held_out = _held_out(data, voters)
    by_name = {_title(voter): voter for voter in voters}
    options = [
        Option(name, voter.scores(held_out.images), engine_ms([voter], held_out.images))
        for name, voter in by_name.items()
    ]
    front = pareto_front(select_greedily(options, held_out.labels, budget_ms, most))
    if not front:
        raise ConfigError(
            f"no model runs within {budget_ms:g} ms; the fastest takes {min(o.cost for o in options):.2f}"
        )
    documents = [
        {
            "members": [{"model": by_name[name].name, "views": list(by_name[name].views)} for name in choice.members],
            "accuracy": round(choice.accuracy, 5),
            "predicted_ms": round(choice.cost, 3),
            "measured_ms": round(engine_ms([by_name[name] for name in choice.members], held_out.images), 3),
        }
        for choice in front
    ]
    if as_json:
        click.echo(json.dumps({"images": len(held_out.labels), "front": documents}, indent=2))
        return
    import yaml

    table = Table("members", "accuracy", "predicted ms", "measured ms", box=None)
    for choice, document in zip(front, documents, strict=True):
        times = (f"{document['predicted_ms']:.2f}", f"{document['measured_ms']:.2f}")
        table.add_row(" + ".join(choice.members), f"{choice.accuracy:.2%}", *times)
    Console().print(f"{len(held_out.labels)} held-out images, engine time of one image", table, sep="\n")
    click.echo(
        yaml.safe_dump({"ensembles": [{"name": "suggested", "members": documents[-1]["members"]}]}, sort_keys=False)
    )


@ensemble.command()
@click.argument("name")
@config_option
@data_option
@click.option("--within", type=click.FloatRange(0, 100), default=0.0, show_default=True,
              help="Of a cascade: points of accuracy that it may lose against its last stage.")  # fmt: skip
@click.option("--budget-ms", type=float, help="Of a cascade: most engine time of an image, instead of --within.")
@click.option("--measure", type=click.Choice(["margin", "entropy"]), default="margin", show_default=True,
              help="Of a cascade: which measure of confidence its thresholds apply to.")  # fmt: skip
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
    ensembles = {one.name: one for one in settings.ensembles}
    cascades = {one.name: one for one in settings.cascades}
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

    config = next(one for one in settings.ensembles if one.name == name)
    voters = [_voter(settings, one.model, one.views, one.calibrated) for one in config.members]
    held_out = _held_out(data, voters)
    scores = np.stack([voter.scores(held_out.images) for voter in voters])
    weights = fit_weights(scores, held_out.labels)
    kept = weights > 0
    fitted = combine(scores[kept], weights[kept], "mean_probability").argmax(axis=1)
    equal = combine(scores, np.ones(len(scores)), "mean_probability").argmax(axis=1)
    members = [
        one.model_dump(mode="json") | {"weight": round(float(weight), 4)}
        for one, weight in zip(config.members, weights, strict=True)
        if weight > 0
    ]
    return {
        "ensembles": [{"name": name, "combine": "mean_probability", "members": members}],
        "held_out": {
            "images": len(held_out.labels),
            "accuracy": float((fitted == held_out.labels).mean()),
            "accuracy_with_equal_weights": float((equal == held_out.labels).mean()),
        },
    }


def _fit_cascade(
    settings: Settings, name: str, data: str, within: float, budget_ms: float | None, measure: Any
) -> dict[str, Any]:
    from models.ensembles.thresholds import Candidate, fit_for_accuracy, fit_for_budget
    from serve.planning.ensemble_evaluation import engine_ms

    config = next(one for one in settings.cascades if one.name == name)
    if any(stage.model in {one.name for one in settings.ensembles} for stage in config.stages):
        raise ConfigError(f"{name}: thresholds are fitted for stages that are models, not for ensembles")
    voters = [_voter(settings, one.model, one.views, one.calibrated) for one in config.stages]
    held_out = _held_out(data, voters)
    stages = [
        Candidate(_title(voter), voter.scores(held_out.images), engine_ms([voter], held_out.images)) for voter in voters
    ]
    last = float((stages[-1].scores.argmax(axis=1) == held_out.labels).mean())
    if budget_ms is None:
        fitted = fit_for_accuracy(stages, held_out.labels, last - within / 100, measure)
    else:
        fitted = fit_for_budget(stages, held_out.labels, budget_ms, measure)
    documents = [
        {key: value for key, value in stage.model_dump(mode="json").items() if key not in ("margin", "entropy")}
        for stage in config.stages
    ]
    for document, threshold in zip(documents, fitted.thresholds, strict=False):
        document[measure] = round(threshold, 5)
    return {
        "cascades": [{"name": name, "stages": documents}],
        "held_out": {
            "images": len(held_out.labels),
            "accuracy": fitted.accuracy,
            "accuracy_of_the_last_stage": last,
            "asked": [round(share, 4) for share in fitted.shares],
            "engine_ms": round(fitted.cost, 3),
            "engine_ms_of_the_last_stage": round(stages[-1].cost, 3),
        },
    }


def _candidates(settings: Settings, data: str, names: tuple[str, ...], flip: bool) -> list[Voter]:
    """The named models, or those that were trained on this data set, each alone and mirrored."""
    from models.artifact import Artifact

    if not names:
        of_data = [one.name for one in settings.models if Artifact.load(one.folder).manifest.dataset == data]
        names = tuple(of_data)
    if not names:
        raise ConfigError(f"no model here was trained on {data!r}; name the candidates with --model")
    voters = [_voter(settings, name, ("identity",), False) for name in names]
    return voters + ([_voter(settings, name, ("flip",), False) for name in names] if flip else [])


def _voter(settings: Settings, name: str, views: Any, calibrated: bool) -> Voter:
    from serve.config.thread_plan import plan_threads
    from serve.planning.ensemble_evaluation import Voter

    model = next((one for one in settings.models if one.name == name), None)
    if model is None:
        raise NotFound(f"unknown model {name!r}; known: {', '.join(one.name for one in settings.models)}")
    return Voter(model, views, calibrated, model.threads or plan_threads(settings).local, settings.limits.pixels)


def _held_out(data: str, voters: list[Voter]) -> ValidationSet:
    from serve.planning.ensemble_evaluation import load_validation_set

    if len({voter.labels for voter in voters}) > 1:
        raise ConfigError("the models have different labels and cannot vote together")
    return load_validation_set(data, voters[0].labels)


def _title(voter: Voter) -> str:
    return voter.name if voter.views == ("identity",) else f"{voter.name} {' '.join(voter.views)}"
