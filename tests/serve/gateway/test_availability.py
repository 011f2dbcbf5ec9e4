"""Which names are unavailable, and why: derived from the catalog and from the states of the models."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import NotFound, NotReady, reason_of
from serve.config.base import TENSOR_SUFFIX
from serve.config.ensembles import CascadeConfig, EnsembleConfig, MemberConfig, StageConfig
from serve.config.experiments import Arm, Experiment
from serve.gateway.availability import Absence, Composition, absences, failed, loading, members_of, unloaded

MODELS = [f"model-{number}" for number in range(5)]
STATES = st.sampled_from([loading, unloaded, lambda name: failed(name, f"why {name} failed")])


def ensemble(name: str, members: list[str]) -> EnsembleConfig:
    return EnsembleConfig(name=name, members=tuple(MemberConfig(model=member) for member in members))


def cascade(name: str, stages: list[str]) -> CascadeConfig:
    earlier = [StageConfig(model=stage, margin=0.5) for stage in stages[:-1]]
    return CascadeConfig(name=name, stages=(*earlier, StageConfig(model=stages[-1])))


def experiment(name: str, arms: list[str]) -> Experiment:
    return Experiment(name=name, arms=tuple(Arm(name=f"arm-{number}", model=arm) for number, arm in enumerate(arms)))


@st.composite
def composition_lists(draw: st.DrawFn) -> list[Composition]:
    """Ensembles of models, cascades of models and ensembles, and experiments on all of them."""
    compositions: list[Composition] = []
    names = list(MODELS)
    for kind, build, least in (("ensemble", ensemble, 1), ("cascade", cascade, 2), ("experiment", experiment, 2)):
        if kind == "experiment":
            names += [name + TENSOR_SUFFIX for name in MODELS]
        members = st.lists(st.sampled_from(names), min_size=least, max_size=3, unique=True)
        compositions += [build(f"{kind}-{number}", draw(members)) for number in range(draw(st.integers(0, 3)))]
        names += [composition.name for composition in compositions if composition.name not in names]
    return compositions


@given(composition_lists(), st.dictionaries(st.sampled_from(MODELS), STATES), st.data())
def test_a_composition_is_unavailable_exactly_if_one_of_its_models_is(
    compositions: list[Composition], states: dict[str, object], data: st.DataObject
) -> None:
    models = {name: state(name) for name, state in states.items()}  # type: ignore[operator]
    names = st.sampled_from([composition.name for composition in compositions]) if compositions else st.nothing()
    problems = data.draw(st.dictionaries(names, st.just("its own problem"))) if compositions else {}
    found = absences(compositions, models, problems)
    for model in MODELS:
        assert found.get(model) == found.get(model + TENSOR_SUFFIX) == models.get(model)
    for composition in compositions:
        member_absent = any(member in found for member in members_of(composition))
        assert (composition.name in found) == (composition.name in problems or member_absent)
    composed = {composition.name for composition in compositions}
    assert set(found) <= {*MODELS, *(name + TENSOR_SUFFIX for name in MODELS), *composed}
    for name, absence in found.items():
        cause = models.get(absence.model) or failed(absence.model, problems.get(absence.model, ""))
        assert (absence.state, absence.unloaded) == (cause.state, cause.unloaded)
        assert absence.reason.endswith(cause.reason)
        assert isinstance(absence.error(name), NotFound if absence.unloaded else NotReady)
        assert name in str(absence.error(name))
        assert absence.reason in str(absence.error(name))


def test_a_reason_names_the_failed_model_and_each_composition_on_the_way_to_it() -> None:
    compositions: list[Composition] = [
        ensemble("e", ["a", "b"]),
        cascade("c", ["c", "e"]),
        experiment("x", ["c", "d-tensor"]),
    ]
    found = absences(
        compositions, {"b": failed("b", "no weights"), "d": failed("d", "no memory")}, {"e": "not reported"}
    )
    assert {name: absence.reason for name, absence in found.items()} == {
        "b": "no weights",
        "b-tensor": "no weights",
        "d": "no memory",
        "d-tensor": "no memory",
        "e": "it needs b: no weights",
        "c": "it needs e: it needs b: no weights",
        "x": "it needs c: it needs e: it needs b: no weights",
    }


def test_a_composition_of_an_unloaded_model_names_the_model_to_load() -> None:
    compositions: list[Composition] = [
        ensemble("both", ["lenet", "resnet"]),
        ensemble("one", ["resnet"]),
        cascade("steps", ["resnet", "both"]),
    ]
    found = absences(compositions, {"lenet": unloaded("lenet")}, {})
    assert set(found) == {"lenet", "lenet-tensor", "both", "steps"}
    assert str(found["steps"].error("steps")).endswith("POST /v2/repository/models/lenet/load")
    assert absences(compositions, {}, {}) == {}


def test_the_reason_of_a_failure_is_short_and_without_details() -> None:
    assert reason_of(NotReady("no host")) == "no host"
    assert reason_of(RuntimeError("first line\nsecret\n")) == "RuntimeError: first line"
    assert reason_of(MemoryError()) == "MemoryError"
    assert reason_of(PermissionError(13, "Permission denied", "weights.bin")).endswith(
        "Permission denied: 'weights.bin'"
    )
    assert len(reason_of(ValueError("x" * 10_000))) <= 500
    assert unloaded("m", under_way=True) == Absence("UNLOADING", "unloaded", "m", unloaded=True)
