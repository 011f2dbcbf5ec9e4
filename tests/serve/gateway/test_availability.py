"""What does not answer follows from what is wanted and from the models' states, and says why."""

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
    return EnsembleConfig(name=name, members=tuple(MemberConfig(model=one) for one in members))


def cascade(name: str, stages: list[str]) -> CascadeConfig:
    before = [StageConfig(model=one, margin=0.5) for one in stages[:-1]]
    return CascadeConfig(name=name, stages=(*before, StageConfig(model=stages[-1])))


def experiment(name: str, arms: list[str]) -> Experiment:
    return Experiment(name=name, arms=tuple(Arm(name=f"arm-{number}", model=one) for number, one in enumerate(arms)))


@st.composite
def made_of_models(draw: st.DrawFn) -> list[Composition]:
    """Ensembles of models, cascades of those too, experiments on all of them."""
    made: list[Composition] = []
    names = list(MODELS)
    for kind, build, least in (("ensemble", ensemble, 1), ("cascade", cascade, 2), ("experiment", experiment, 2)):
        if kind == "experiment":
            names += [name + TENSOR_SUFFIX for name in MODELS]
        several = st.lists(st.sampled_from(names), min_size=least, max_size=3, unique=True)
        made += [build(f"{kind}-{number}", draw(several)) for number in range(draw(st.integers(0, 3)))]
        names += [one.name for one in made if one.name not in names]
    return made


@given(made_of_models(), st.dictionaries(st.sampled_from(MODELS), STATES), st.data())
def test_a_name_is_absent_exactly_when_a_part_of_it_is(
    made: list[Composition], states: dict[str, object], data: st.DataObject
) -> None:
    models = {name: state(name) for name, state in states.items()}  # type: ignore[operator]
    names = st.sampled_from([one.name for one in made]) if made else st.nothing()
    problems = data.draw(st.dictionaries(names, st.just("its own problem"))) if made else {}
    found = absences(made, models, problems)
    for model in MODELS:
        assert found.get(model) == found.get(model + TENSOR_SUFFIX) == models.get(model)
    for one in made:
        assert (one.name in found) == (one.name in problems or any(part in found for part in members_of(one)))
    assert set(found) <= {*MODELS, *(name + TENSOR_SUFFIX for name in MODELS), *(one.name for one in made)}
    for name, absence in found.items():
        cause = models.get(absence.model) or failed(absence.model, problems.get(absence.model, ""))
        assert (absence.state, absence.unloaded) == (cause.state, cause.unloaded)
        assert absence.reason.endswith(cause.reason)
        assert isinstance(absence.error(name), NotFound if absence.unloaded else NotReady)
        assert name in str(absence.error(name))
        assert absence.reason in str(absence.error(name))


def test_two_that_fail_say_each_its_own_reason_and_the_way_to_it() -> None:
    made: list[Composition] = [ensemble("e", ["a", "b"]), cascade("c", ["c", "e"]), experiment("x", ["c", "d-tensor"])]
    found = absences(made, {"b": failed("b", "no weights"), "d": failed("d", "no memory")}, {"e": "never asked"})
    assert {name: absence.reason for name, absence in found.items()} == {
        "b": "no weights",
        "b-tensor": "no weights",
        "d": "no memory",
        "d-tensor": "no memory",
        "e": "it needs b: no weights",
        "c": "it needs e: it needs b: no weights",
        "x": "it needs c: it needs e: it needs b: no weights",
    }


def test_what_is_made_of_an_unloaded_model_goes_with_it_and_says_which_to_load() -> None:
    made: list[Composition] = [
        ensemble("both", ["lenet", "resnet"]),
        ensemble("one", ["resnet"]),
        cascade("steps", ["resnet", "both"]),
    ]
    found = absences(made, {"lenet": unloaded("lenet")}, {})
    assert set(found) == {"lenet", "lenet-tensor", "both", "steps"}
    assert str(found["steps"].error("steps")).endswith("POST /v2/repository/models/lenet/load")
    assert absences(made, {}, {}) == {}


def test_what_is_told_of_a_failure() -> None:
    assert reason_of(NotReady("no host")) == "no host"
    assert reason_of(RuntimeError("first line\nsecret\n")) == "RuntimeError: first line"
    assert reason_of(MemoryError()) == "MemoryError"
    assert reason_of(PermissionError(13, "Permission denied", "weights.bin")).endswith(
        "Permission denied: 'weights.bin'"
    )
    assert len(reason_of(ValueError("x" * 10_000))) <= 500
    assert unloaded("m", under_way=True) == Absence("UNLOADING", "unloaded", "m", unloaded=True)
