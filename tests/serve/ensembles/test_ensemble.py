"""Ensembles, cascades and their queue, with real batchers and scripted engines."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convoy.errors import Cancelled, ConvoyError, DeadlineExceeded, EngineFailed, NotReady, Overloaded
from models.ensembles.combine import combine
from serve.batching.batcher import Batcher
from serve.batching.latency_curve import LatencyCurve
from serve.batching.line import BatcherLimits
from serve.batching.results import Answer
from serve.batching.slots import Slots
from serve.ensembles.cascade import Cascade, Stage
from serve.ensembles.ensemble import Ensemble, EnsembleResult, Member
from serve.ensembles.multi_view import Views
from serve.ensembles.runner import EnsembleRunner

CURVE = LatencyCurve((1, 8), (0.001, 0.004))
FOREVER = 1e12
CLASSES = 4
SHORT_SECONDS = 0.05


class Net:
    """An engine whose logit for the class of a pixel's value is `certainty`. It answers, or fails, when its gate opens."""

    def __init__(self, certainty: float = 3.0, fails: bool = False, queue: int = 10_000) -> None:
        self.certainty = certainty
        self.fails = fails
        self.rows = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()
        self.batcher = Batcher(self.run, Slots(1), BatcherLimits(4, queue), CURVE)

    async def run(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        self.reached.set()
        await self.gate.wait()
        self.rows += len(rows)
        if self.fails:
            raise RuntimeError("secret detail")
        return self.logits(rows)

    def logits(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        seen: NDArray[np.float32] = np.eye(CLASSES, dtype=np.float32)[rows[:, 0, 0, 0]]
        return seen * np.float32(self.certainty)

    def member(
        self, name: str = "net", geometry: int = 0, weight: float = 1.0, temperature: float = 1.0, view_count: int = 1
    ) -> Member:
        return Member(name, "1", self.batcher, geometry, weight, temperature, view_count)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


def views_of(*classes: int, views: int = 1) -> Views:
    rows = np.array(classes, np.uint8)[:, np.newaxis, np.newaxis, np.newaxis, np.newaxis]
    return Views((np.repeat(rows, views, axis=1),))


async def until_submitted() -> None:
    """Yields until the runner's task, and the tasks that it starts for its members, have submitted or cancelled."""
    for _ in range(5):
        await asyncio.sleep(0)


def scores_of(result: EnsembleResult) -> NDArray[np.float32]:
    assert isinstance(result.scores, np.ndarray), result.scores
    return result.scores


@settings(deadline=None)
@given(
    st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=9),
    st.lists(st.tuples(st.floats(0.5, 9), st.floats(0.1, 3), st.integers(1, 3), st.booleans()), min_size=1, max_size=4),
    st.sampled_from(["mean_logit", "mean_probability", "geometric_mean", "vote"]),
)
def test_members_that_answer_are_combined_as_by_the_offline_rule(
    classes: list[int], plan: list[Any], rule: Any
) -> None:
    """With any number of images and members, of which some fail, rows keep their order over all batches."""

    async def scenario() -> None:
        nets = [Net(certainty, fails) for certainty, _, _, fails in plan]
        members = [
            net.member(f"net{position}", position, weight=weight)
            for position, (net, (_, weight, _, _)) in enumerate(zip(nets, plan, strict=True))
        ]
        request = Views(tuple(views_of(*classes, views=views).rows[0] for _, _, views, _ in plan))
        result = await Ensemble(members, rule).run(request, FOREVER)
        alive = [(net, *options) for net, options in zip(nets, plan, strict=True) if not options[3]]
        assert [member.outcome == "answered" for member in result.members] == [not options[3] for options in plan]
        if not alive:
            assert isinstance(result.scores, EngineFailed)
            return
        rows = np.array(classes)[:, np.newaxis, np.newaxis, np.newaxis]
        votes = np.concatenate(
            [np.repeat(net.logits(rows)[np.newaxis], views, axis=0) for net, _, _, views, _ in alive]
        )
        weights = np.concatenate([np.full(views, weight / views) for _, _, weight, views, _ in alive])
        np.testing.assert_allclose(scores_of(result), combine(votes, weights, rule), atol=1e-5)
        assert scores_of(result).argmax(axis=1).tolist() == classes

    run(scenario)


def test_a_late_member_is_left_out_at_the_deadline_and_reported() -> None:
    async def scenario() -> None:
        quick, slow = Net(), Net()
        slow.gate.clear()
        plan = Ensemble([quick.member("quick"), slow.member("slow")], deadline=SHORT_SECONDS)
        result = await plan.run(views_of(2, 1), FOREVER)
        assert scores_of(result).argmax(axis=1).tolist() == [2, 1]
        assert [(member.model, member.outcome) for member in result.members] == [
            ("quick", "answered"),
            ("slow", "late"),
        ]
        assert result.members[0].engine_seconds > 0
        assert result.members[1].seconds >= SHORT_SECONDS
        slow.gate.set()
        await slow.batcher.close()

    run(scenario)


def test_members_run_at_the_same_time() -> None:
    """Each of three members answers only after all three have started."""

    async def scenario() -> None:
        nets = [Net() for _ in range(3)]
        for net in nets:
            net.gate.clear()
        request = asyncio.create_task(Ensemble([net.member() for net in nets]).run(views_of(1), FOREVER))
        for net in nets:
            await net.reached.wait()
        for net in nets:
            net.gate.set()
        assert scores_of(await request).argmax() == 1

    run(scenario)


@pytest.mark.parametrize(("needed", "enough"), [(1, True), (2, True), (3, False)])
def test_a_request_fails_when_fewer_than_min_members_answer(needed: int, enough: bool) -> None:
    async def scenario() -> None:
        nets = [Net(), Net(fails=True), Net()]
        result = await Ensemble([net.member() for net in nets], min_members=needed).run(views_of(0), FOREVER)
        assert isinstance(result.scores, np.ndarray) is enough
        if not enough:
            assert isinstance(result.scores, EngineFailed)
            assert "2 of 3 members answered, 3 needed" in str(result.scores)
            assert "secret" not in str(result.scores)

    run(scenario)


def test_a_member_that_is_full_or_closed_counts_as_failed() -> None:
    async def scenario() -> None:
        closed, full, alive = Net(), Net(), Net()
        await closed.batcher.close()
        full.batcher.limits = BatcherLimits(1, 1)
        full.gate.clear()
        waiting = [full.batcher.submit(views_of(0).rows[0][0], FOREVER) for _ in range(2)]
        result = await Ensemble([net.member() for net in (closed, full, alive)]).run(views_of(3), FOREVER)
        assert [member.outcome for member in result.members] == ["failed", "failed", "answered"]
        assert scores_of(result).argmax() == 3
        alone = await Ensemble([full.member()]).run(views_of(3), FOREVER)
        assert isinstance(alone.scores, Overloaded)
        full.gate.set()
        await asyncio.gather(*waiting)

    run(scenario)


@pytest.mark.parametrize("rule", ["mean_logit", "mean_probability", "geometric_mean", "vote"])
def test_a_member_that_answers_nan_has_failed(rule: Any) -> None:
    async def scenario() -> None:
        sound, broken = Net(), Net(np.nan)
        result = await Ensemble([broken.member("broken"), sound.member("sound")], rule).run(
            views_of(2, 1, views=2), FOREVER
        )
        assert [member.outcome for member in result.members] == ["failed", "answered"]
        assert scores_of(result).argmax(axis=1).tolist() == [2, 1]
        assert np.isfinite(scores_of(result)).all()
        alone = await Ensemble([broken.member()], rule).run(views_of(2), FOREVER)
        assert isinstance(alone.scores, EngineFailed)
        later = await Cascade([Stage("a", Ensemble([broken.member()])), Stage("b", Ensemble([sound.member()]))]).run(
            views_of(3), FOREVER
        )
        assert scores_of(later).argmax() == 3

    run(scenario)


def test_members_that_together_exclude_every_class_fail() -> None:
    async def scenario() -> None:
        async def masked(rows: NDArray[Any], left: int) -> NDArray[np.float32]:
            logits = np.full((len(rows), CLASSES), -np.inf, np.float32)
            logits[:, left] = 1
            return logits

        queues = [Batcher(partial(masked, left=index), Slots(1), BatcherLimits(4, 10), CURVE) for index in (0, 1)]
        members = [Member("net", "1", queue, 0) for queue in queues]
        result = await Ensemble(members, "mean_logit").run(views_of(0), FOREVER)
        assert isinstance(result.scores, EngineFailed)
        mean = await Ensemble(members, "mean_probability").run(views_of(0), FOREVER)
        np.testing.assert_allclose(np.exp(scores_of(mean)), [[0.5, 0.5, 0, 0]], atol=1e-6)

    run(scenario)


def test_temperature_divides_logits() -> None:
    async def scenario() -> None:
        net = Net(certainty=6.0)
        result = await Ensemble([net.member(temperature=3.0)]).run(views_of(1), FOREVER)
        np.testing.assert_allclose(scores_of(result), [[0, 2, 0, 0]], atol=1e-6)

    run(scenario)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=12),
    st.lists(st.tuples(st.floats(0.1, 8), st.floats(0, 1), st.booleans()), min_size=2, max_size=4),
)
def test_a_cascade_answers_each_image_with_the_last_stage_it_reached(classes: list[int], plan: list[Any]) -> None:
    async def scenario() -> None:
        nets = [Net(certainty, fails) for certainty, _, fails in plan]
        stages = [
            Stage(str(position), Ensemble([net.member()]), "margin", threshold)
            for position, (net, (_, threshold, _)) in enumerate(zip(nets, plan, strict=True))
        ]
        result = await Cascade(stages).run(views_of(*classes), FOREVER)
        answered: float | None = None
        reached = 0
        for certainty, threshold, fails in plan:
            reached += 1
            if fails:
                continue
            answered = certainty
            margin = (np.exp(certainty) - 1) / (np.exp(certainty) + CLASSES - 1)
            assume(abs(margin - threshold) > 1e-4)
            if margin > threshold:
                break
        # The certainty is the same for all images, so that all of them go to the next stage, or none.
        assert result.images_by_stage == tuple((str(position), len(classes)) for position in range(reached))
        if answered is None:
            assert isinstance(result.scores, EngineFailed)
            return
        expected = answered * np.eye(CLASSES, dtype=np.float32)[classes]
        np.testing.assert_array_equal(scores_of(result), expected.astype(np.float32))

    run(scenario)


def test_only_unsure_images_go_to_the_next_stage() -> None:
    class Wavering(Net):
        def logits(self, rows: NDArray[Any]) -> NDArray[np.float32]:
            logits = super().logits(rows)
            logits[rows[:, 0, 0, 0] == 2] *= 0.01
            return logits

    async def scenario() -> None:
        first, last = Wavering(), Net(certainty=9.0)
        cascade = Cascade(
            [Stage("1-first", Ensemble([first.member()]), "margin", 0.5), Stage("2-last", Ensemble([last.member()]))]
        )
        result = await cascade.run(views_of(0, 2, 1, 2, 3), FOREVER)
        assert result.images_by_stage == (("1-first", 5), ("2-last", 2))
        assert last.rows == 2
        assert scores_of(result).max(axis=1).tolist() == [3, 9, 3, 9, 3]
        assert scores_of(result).argmax(axis=1).tolist() == [0, 2, 1, 2, 3]

    run(scenario)


def test_the_answer_of_an_earlier_stage_is_used_when_the_next_stage_is_late() -> None:
    async def scenario() -> None:
        first, last = Net(certainty=0.5), Net()
        last.gate.clear()
        cascade = Cascade(
            [Stage("a", Ensemble([first.member("a")]), "margin", 0.9), Stage("b", Ensemble([last.member("b")]))],
            SHORT_SECONDS,
        )
        result = await cascade.run(views_of(1), FOREVER)
        np.testing.assert_allclose(scores_of(result), [[0, 0.5, 0, 0]])
        assert [(member.model, member.outcome) for member in result.members] == [("a", "answered"), ("b", "late")]
        last.gate.set()
        await last.batcher.close()

    run(scenario)


def test_a_runner_answers_with_member_results_and_closes() -> None:
    async def scenario() -> None:
        nets = [Net(), Net(fails=True)]
        results: list[tuple[EnsembleResult, int]] = []
        runner = EnsembleRunner(
            Ensemble([net.member() for net in nets]), BatcherLimits(64, 1024), lambda *args: results.append(args)
        )
        answer: Answer = await runner.submit(views_of(3, 0), FOREVER)
        assert answer.logits.argmax(axis=1).tolist() == [3, 0]
        assert [member.outcome for member in answer.members] == ["answered", "failed"]
        assert results[0][1] == 2
        await runner.close()
        with pytest.raises(NotReady):
            runner.submit(views_of(0), FOREVER)

    run(scenario)


def test_any_error_ends_the_future() -> None:
    class Broken:
        waiting_rows = 0

        async def run(self, *_: Any) -> EnsembleResult:
            raise RuntimeError("secret detail")

        def admit(self, *_: Any) -> None:
            pass

        def arrival(self, *_: Any) -> AbstractContextManager[None]:
            return nullcontext()

    async def scenario() -> None:
        runner = EnsembleRunner(Broken(), BatcherLimits(64, 1024))
        with pytest.raises(EngineFailed) as failure:
            await runner.submit(views_of(0), FOREVER)
        assert "secret" not in str(failure.value)
        too_few = EnsembleRunner(Ensemble([Net(fails=True).member()]), BatcherLimits(64, 1024))
        with pytest.raises(ConvoyError):
            await too_few.submit(views_of(0), FOREVER)

    run(scenario)


def test_images_are_admitted_before_decoding_when_enough_members_have_room() -> None:
    """Expected rows count in the members' queues, one for each view; a full member is skipped."""

    async def scenario() -> None:
        free, full = Net(), Net(queue=8)
        full.gate.clear()
        waiting = [full.batcher.submit(np.repeat(views_of(0).rows[0][0], 4, axis=0), FOREVER) for _ in range(3)]
        pair = [free.member(view_count=2), full.member()]
        either = EnsembleRunner(Ensemble(pair), BatcherLimits(64, 1024))
        both = EnsembleRunner(Ensemble(pair, min_members=2), BatcherLimits(64, 1024))
        stages = EnsembleRunner(
            Cascade([Stage("1", Ensemble([pair[1]])), Stage("2", Ensemble([pair[0]]))]), BatcherLimits(64, 1024)
        )
        for runner in (either, stages):
            with runner.arrival(3, FOREVER):
                assert free.batcher._arriving.total == 6
            runner.admit(3, FOREVER)
        with pytest.raises(Overloaded, match="queue full"):
            both.admit(3, FOREVER)
        with pytest.raises(Overloaded), both.arrival(3, FOREVER):
            pass
        assert free.batcher._arriving.total == 0
        full.gate.set()
        await asyncio.gather(*waiting)

    run(scenario)


def test_admission_checks_and_abandoned_images_do_not_change_decode_estimates() -> None:
    async def scenario() -> None:
        net = Net()
        runner = EnsembleRunner(Ensemble([net.member()]), BatcherLimits(64, 1024))
        before = net.batcher._decode_error.high
        for _ in range(50):
            runner.admit(1, FOREVER, ready_in=5.0)
            with pytest.raises(Cancelled), runner.arrival(1, FOREVER, ready_in=5.0):
                raise Cancelled("gone")
        assert net.batcher._decode_error.high == before

    run(scenario)


def test_decoded_images_are_not_refused_because_of_images_still_in_decoding() -> None:
    """The deadline of an ensemble counts from the run of its members, so it is later than that of images still in decoding."""

    async def scenario() -> None:
        net = Net(queue=64)
        ensemble = Ensemble([net.member()], deadline=30.0)
        with net.batcher.arrival(60, time.monotonic() + 30.0, ready_in=0.1):
            result = await ensemble.run(views_of(*[0] * 10), FOREVER)
        assert len(scores_of(result)) == 10

    run(scenario)


def test_a_cancelled_request_leaves_the_queues_of_all_members() -> None:
    async def scenario() -> None:
        net = Net()
        net.gate.clear()
        blocker = net.batcher.submit(views_of(0).rows[0][0], FOREVER)
        runner = EnsembleRunner(Ensemble([net.member()]), BatcherLimits(64, 1024))
        futures = [runner.submit(views_of(1), FOREVER) for _ in range(3)]
        await until_submitted()
        assert net.batcher.waiting_rows == 3
        futures[0].set_exception(Cancelled("gone"))
        futures[1].cancel()
        with pytest.raises(Cancelled):
            await futures[0]
        await asyncio.sleep(0)
        net.gate.set()
        await blocker
        assert (await futures[2]).logits.argmax() == 1
        await runner.close()
        assert net.rows == 2  # the blocker and the request that was not cancelled

    run(scenario)


def test_the_queue_of_an_ensemble_counts_its_rows_in_the_queues_of_its_members() -> None:
    """Rows of other requests in the members' queues, rows that run, and rows of cancelled requests do not count."""

    async def scenario() -> None:
        busy, other = Net(), Net()
        for net in (busy, other):
            net.gate.clear()
        own = [net.batcher.submit(views_of(0).rows[0][0], FOREVER) for net in (busy, other)]
        for net in (busy, other):
            await net.reached.wait()
        own.append(busy.batcher.submit(views_of(0).rows[0][0], FOREVER))
        pair = EnsembleRunner(Ensemble([busy.member(), other.member(geometry=1)]), BatcherLimits(64, 1024))
        stages = [Stage("1", Ensemble([busy.member()])), Stage("2", Ensemble([other.member()]))]
        cascade = EnsembleRunner(Cascade(stages), BatcherLimits(64, 1024))
        both = Views((*views_of(1, 2, 3).rows, *views_of(1, 2, 3, views=2).rows))
        answers = [pair.submit(both, FOREVER), pair.submit(both, FOREVER), cascade.submit(views_of(3, 2), FOREVER)]
        await until_submitted()
        assert (pair.waiting_rows, cascade.waiting_rows) == (2 * (3 + 2 * 3), 2)
        assert (busy.batcher.waiting_rows, other.batcher.waiting_rows) == (1 + 2 * 3 + 2, 2 * 2 * 3)
        answers[1].cancel()
        await until_submitted()
        assert pair.waiting_rows == 3 + 2 * 3
        for net in (busy, other):
            net.gate.set()
        await asyncio.gather(*own, answers[0], answers[2])
        assert (pair.waiting_rows, cascade.waiting_rows) == (0, 0)

    run(scenario)


def test_a_request_whose_only_member_is_late_exceeds_its_deadline() -> None:
    async def scenario() -> None:
        net = Net()
        net.gate.clear()
        runner = EnsembleRunner(Ensemble([net.member()], deadline=SHORT_SECONDS), BatcherLimits(64, 1024))
        with pytest.raises(DeadlineExceeded, match="0 of 1 members answered, 1 needed"):
            await runner.submit(views_of(1), FOREVER)
        net.gate.set()
        await net.batcher.close()

    run(scenario)


def test_every_combination_of_failures_is_reported_by_member() -> None:
    async def scenario() -> None:
        for fails in itertools.product((False, True), repeat=3):
            nets = [Net(fails=failed) for failed in fails]
            result = await Ensemble([net.member(str(n)) for n, net in enumerate(nets)]).run(views_of(1), FOREVER)
            assert [(member.model, member.outcome == "failed") for member in result.members] == [
                (str(number), failed) for number, failed in enumerate(fails)
            ]

    run(scenario)
