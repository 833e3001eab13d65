"""Exact moments: the nearest float to what fractions say, whatever the order, chunks and merges."""

import math
import pickle
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm._core import ExactMoments
from recfm.errors import DataError

finite = st.floats(allow_nan=False, allow_infinity=False)
# Values that cancel, tie and underflow when squared, beside floats of every size.
values = st.lists(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, 1e16, -1e16, 5e-324, -1.7976931348623157e308])
    | finite
    | st.floats(-1e3, 1e3),
    min_size=1,
    max_size=40,
)


def moments(values):
    made = ExactMoments()
    made.update(np.array(values, np.float64))
    return made


def is_nearest_root(root, square):
    """Whether no other float is nearer to the root of a fraction than `root` is."""
    exact = Fraction(root)
    below = (exact + Fraction(math.nextafter(root, -math.inf))) / 2
    above_float = math.nextafter(root, math.inf)
    above = (exact + Fraction(above_float)) / 2 if math.isfinite(above_float) else None
    return (below <= 0 or below**2 <= square) and (above is None or square <= above**2)


@settings(deadline=None, max_examples=300)
@given(values)
def test_moments_are_fractions_rounded_once(values):
    found = moments(values)
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    variance = sum(value * value for value in exact) / len(exact) - mean**2
    assert found.count == len(values)
    assert found.mean() == float(mean)
    assert is_nearest_root(found.std(), variance)
    assert (found.std() == 0) == (len(set(values)) == 1) or variance < Fraction(5e-324) ** 2
    assert (found.min, found.max) == (min(values), max(values))


@settings(deadline=None)
@given(st.lists(st.floats(-1e300, 1e300).filter(lambda value: abs(value) > 1e-200), min_size=1, max_size=200))
def test_the_mean_of_256_values_is_their_fsum_scaled(values):
    padded = values + [0.0] * (256 - len(values))
    assert moments(padded).mean() == math.fsum(values) / 256


@settings(deadline=None)
@given(values, st.data())
def test_order_chunks_and_merges_say_nothing(values, data):
    shuffled = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))
    streamed, worker = ExactMoments(), ExactMoments()
    for value in shuffled[:cut]:
        streamed.update(np.array([value]))
    worker.update(np.array(shuffled[cut:], np.float64))
    worker.merge(pickle.loads(pickle.dumps(streamed)))
    assert worker.to_bytes() == moments(values).to_bytes()


def test_large_arrays_are_what_decimals_say():
    array = np.random.default_rng(0).normal(1e6, 1e-3, 200_000)
    with localcontext(prec=200):
        mean = sum(map(Decimal, array.tolist())) / len(array)
        variance = sum((Decimal(value) - mean) ** 2 for value in array.tolist()) / len(array)
        expected = float(mean), float(variance.sqrt())
    found = moments(array)
    assert (found.mean(), found.std()) == expected


def test_merging_with_oneself_doubles():
    twice = moments([1.0, 4.0])
    twice.merge(twice)
    assert (twice.count, twice.mean(), twice.std()) == (4, 2.5, 1.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named_and_nothing_is_taken_in(bad):
    found = moments([2.0])
    with pytest.raises(DataError, match=r"`values\[1500\]` is (NaN|-?inf), but only finite"):
        found.update(np.array([1.0] * 1500 + [bad, math.nan]))
    assert found.to_bytes() == moments([2.0]).to_bytes()


@pytest.mark.parametrize("moment", ["mean", "std", "min", "max"])
def test_moments_of_nothing_are_refused(moment):
    empty = moments([])
    read = {"mean": empty.mean, "std": empty.std}.get(moment, lambda: getattr(empty, moment))
    with pytest.raises(DataError, match=f"the {moment} of no values is undefined"):
        read()


def test_other_arrays_are_refused():
    with pytest.raises(DataError, match="`values` must be a C-contiguous float64 array"):
        ExactMoments().update(np.zeros(3, np.float32))


def test_damaged_bytes_are_refused():
    good = moments([1.0, 2.5]).to_bytes()
    for damaged in (good[:-1], good + b"\0", b"", good[:100] + b"\1" + good[101:], b"x" + good[1:]):
        with pytest.raises(DataError, match="no saved ExactMoments, or they are damaged"):
            ExactMoments.from_bytes(damaged)
