"""The paired bootstrap against cases worked out by hand and by enumerating all resamples."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from bigner.evaluation.bootstrap import Difference, paired_difference, resampled_f1
from bigner.evaluation.counts import Counts, f1

RESAMPLES = 2000


def run_of(gold: npt.ArrayLike, predicted: npt.ArrayLike, correct: npt.ArrayLike) -> Counts:
    gold, predicted, correct = (np.asarray(counts) for counts in (gold, predicted, correct))
    return Counts(gold, predicted, correct, f1_of_type={}, accuracy=0.0)


def drawn_run(random: np.random.Generator, gold: npt.NDArray[np.int64], skill: float) -> Counts:
    """A run that finds each entity with the same probability, and invents some."""
    correct = random.binomial(gold, skill)
    return run_of(gold, correct + random.binomial(2, 0.2, size=len(gold)), correct)


def difference(here: list[Counts], there: list[Counts], resamples: int = RESAMPLES) -> Difference:
    scores = resampled_f1([*here, *there], resamples)
    means = [float(np.mean([run.f1 for run in runs])) for runs in (here, there)]
    return paired_difference(*means, scores[:, : len(here)], scores[:, len(here) :])


def all_resamples(runs: list[Counts]) -> npt.NDArray[np.float64]:
    """``[n ** n, runs]``: F1 of each run on every resample there is."""
    sentences = range(len(runs[0].gold))
    scores = []
    for drawn in product(sentences, repeat=len(sentences)):
        of_run = []
        for run in runs:
            gold, predicted, correct = (
                sum(int(counts[i]) for i in drawn)
                for counts in (run.gold, run.predicted, run.correct)
            )
            of_run.append(2 * correct / (gold + predicted) if gold + predicted else 0.0)
        scores.append(of_run)
    return np.array(scores)


def test_by_enumeration() -> None:
    here = run_of([2, 0, 1, 3, 1], [2, 1, 1, 2, 0], [2, 0, 1, 2, 0])
    there = run_of([2, 0, 1, 3, 1], [1, 0, 1, 3, 1], [1, 0, 0, 1, 1])
    exact = all_resamples([here, there])
    moved = exact[:, 0] - exact[:, 1]
    found = here.f1 - there.f1
    p_value = np.mean(np.abs(moved - found) >= abs(found) - 1e-12)

    drawn = resampled_f1([here, there], 40_000)
    assert drawn.mean(axis=0) == pytest.approx(exact.mean(axis=0), abs=4e-3)
    assert drawn.std(axis=0) == pytest.approx(exact.std(axis=0), abs=4e-3)
    estimated = paired_difference(here.f1, there.f1, drawn[:, :1], drawn[:, 1:])
    assert estimated.f1 == found
    assert estimated.p_value == pytest.approx(p_value, abs=0.01)
    # With so few sentences many resamples fall on one value: percentiles, within what is drawn.
    for end, share in ((estimated.low, 0.025), (estimated.high, 0.975)):
        assert np.mean(moved < end - 1e-12) < share + 0.004
        assert np.mean(moved <= end + 1e-12) > share - 0.004


def test_by_hand() -> None:
    # One sentence that only the first gets right, one that both do: d = 1 - 2/3. A resample has the
    # one twice (a quarter of all: d* = 1), the other twice (a quarter: 0), or both (a half: 1/3).
    here, there = run_of([1, 1], [1, 1], [1, 1]), run_of([1, 1], [0, 1], [0, 1])
    found = difference([here], [there], 20_000)
    assert found.f1 == pytest.approx(1 / 3)
    assert (found.low, found.high) == (0.0, 1.0)
    # |d* - d| is 2/3 in the first quarter, 1/3 in the second, and 0 else.
    assert found.p_value == pytest.approx(0.5, abs=0.015)


def test_identical_runs_do_not_differ() -> None:
    random = np.random.default_rng(1)
    gold = random.integers(3, size=200)
    a, b, c = (drawn_run(random, gold, skill) for skill in (0.5, 0.6, 0.7))
    assert difference([a], [a]) == Difference(0.0, 0.0, 0.0, 1.0)
    # Nor do the same ones in another order, whose mean is another sum.
    shuffled = difference([a, b, c], [c, a, b])
    assert (shuffled.f1, shuffled.low, shuffled.high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert shuffled.p_value == 1.0


def test_better_on_every_sentence() -> None:
    gold = np.full(50, 2)
    found = difference([run_of(gold, gold, gold)], [run_of(gold, gold, gold - 1)])
    assert (found.f1, found.low, found.high) == (0.5, 0.5, 0.5)
    assert found.p_value == 1 / (RESAMPLES + 1)


def test_the_other_way_round_is_the_opposite() -> None:
    random = np.random.default_rng(2)
    gold = random.integers(4, size=80)
    a, b = drawn_run(random, gold, 0.6), drawn_run(random, gold, 0.55)
    ab, ba = difference([a], [b]), difference([b], [a])
    assert (ba.f1, ba.low, ba.high) == pytest.approx((-ab.f1, -ab.high, -ab.low))
    assert ba.p_value == ab.p_value


def test_a_group_is_the_mean_of_its_runs() -> None:
    random = np.random.default_rng(3)
    gold = random.integers(4, size=60)
    a, b, c = (drawn_run(random, gold, skill) for skill in (0.5, 0.6, 0.7))
    found = difference([a, b], [c])
    assert found.f1 == pytest.approx((a.f1 + b.f1) / 2 - c.f1)
    scores = resampled_f1([a, b, c], RESAMPLES)
    resampled = (scores[:, 0] + scores[:, 1]) / 2 - scores[:, 2]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])))


@pytest.mark.parametrize("at_once", [1, 100, 777, 10**6])
def test_memory_does_not_change_the_answer(at_once: int) -> None:
    random = np.random.default_rng(4)
    gold = random.integers(4, size=37)
    runs = [drawn_run(random, gold, 0.5), drawn_run(random, gold, 0.6)]
    whole = resampled_f1(runs, 300)
    assert np.array_equal(resampled_f1(runs, 300, at_once=at_once), whole)
    assert np.array_equal(resampled_f1(runs, 300, seed=0), whole)
    assert not np.array_equal(resampled_f1(runs, 300, seed=1), whole)


def test_sentences_without_entities() -> None:
    nothing = run_of([0, 0], [0, 0], [0, 0])
    assert difference([nothing], [nothing], 50) == Difference(0.0, 0.0, 0.0, 1.0)


def test_p_values_are_uniform_where_nothing_differs() -> None:
    """Two runs of one skill: p below 10 % in a tenth of all cases, and so on."""
    random = np.random.default_rng(5)
    p_values = []
    for _ in range(400):
        gold = random.integers(3, size=150)
        runs = [[drawn_run(random, gold, 0.6)] for _ in range(2)]
        p_values.append(difference(*runs, 300).p_value)
    # Kolmogorov-Smirnov: 1.63 / sqrt(400) is what one set of uniform numbers in a hundred exceeds.
    sorted_values, even = np.sort(p_values), np.arange(1, 401) / 400
    assert np.abs(sorted_values - even).max() < 1.63 / 20
    assert 0.05 < np.mean(np.array(p_values) < 0.1) < 0.15


def test_a_real_difference_is_found() -> None:
    random = np.random.default_rng(6)
    gold = random.integers(3, size=1500)
    found = difference([drawn_run(random, gold, 0.7)], [drawn_run(random, gold, 0.6)])
    assert 0 < found.low < found.f1 < found.high
    assert found.p_value < 0.01


def test_f1_of_nothing() -> None:
    assert f1([0, 1], [0, 1], [0, 1]).tolist() == [0.0, 1.0]
