"""Vectors in fewer bits: measured errors, and gathering reads exactly what dequantising says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm.errors import DataError
from recfm.history.index import HistoryIndex
from recfm.history.quantize import STORED, Vectors, dequantize, quantize

# Half a step: floats near 1 have steps of 2^-(bits of mantissa + 1).
LARGEST_ERROR = {"f32": 0.0, "f16": 2**-12, "bf16": 2**-9, "int8": 0.5 / 127, "int4": 1 / 15}
BYTES = {"f32": 32 * 4, "f16": 32 * 2, "bf16": 32 * 2, "int8": 32, "int4": 16}
CODEBOOK = np.tanh(np.linspace(-2, 2, 16)).astype(np.float32)


def vectors(n=4000, dim=32, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.uniform(-1, 1, (n, dim)).astype(np.float32)
    z[0], z[1], z[2] = -1, 1, 0
    return z


@pytest.mark.parametrize("dtype", STORED)
def test_the_largest_error_is_half_a_step(dtype):
    z = vectors()
    stored = quantize(z, dtype)
    assert stored.codes.nbytes == len(z) * BYTES[dtype]
    error = np.abs(dequantize(stored) - z).max()
    assert error <= LARGEST_ERROR[dtype] * (1 + 1e-5)
    assert error >= LARGEST_ERROR[dtype] * 0.9
    ends = dequantize(quantize(np.array([[-1.0, 1.0]]), dtype))
    assert ends.tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("dtype", STORED)
@settings(deadline=None, max_examples=20)
@given(dim=st.integers(1, 9), n=st.integers(1, 30), length=st.integers(1, 4), seed=st.integers(0, 99))
def test_gathering_reads_what_dequantising_says(dtype, dim, n, length, seed):
    rng = np.random.default_rng(seed)
    user, time = rng.integers(0, 3, n), rng.integers(0, 9, n)
    codebook = CODEBOOK if dtype == "int4" and seed % 2 else None
    stored = quantize(vectors(n + 3, dim, seed)[3:], dtype, codebook=codebook)
    seen = {}
    for name, values in (("stored", stored), ("plain", dequantize(stored))):
        index = HistoryIndex(user, time, values)
        assert (index.values.shape, index.values.dtype) == ((n, dim), np.float32)
        seen[name] = np.full((n, length, dim), 9, np.float32)
        index.gather(*index.window(user, time, length=length), seen[name])
    np.testing.assert_array_equal(seen["stored"], seen["plain"])


def test_bfloat16_is_that_of_torch():
    torch = pytest.importorskip("torch")
    z = vectors(100)
    expected = torch.from_numpy(z).bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(quantize(z, "bf16").codes, expected)


def test_int4_takes_the_nearest_code_of_its_codebook():
    z = vectors(500)
    expected = np.abs(z[:, :, None] - CODEBOOK).argmin(axis=2)
    codes = quantize(z, "int4", codebook=CODEBOOK).codes
    np.testing.assert_array_equal(codes & 15, expected[:, ::2])
    np.testing.assert_array_equal(codes >> 4, expected[:, 1::2])


@pytest.mark.parametrize(
    ("z", "options", "message"),
    [
        (vectors(5) * 1.5, {"dtype": "int8"}, "only vectors in .-1, 1. can be quantised"),
        (vectors(5) * np.nan, {"dtype": "int8"}, "z reaches nan"),
        (vectors(5)[0], {"dtype": "int8"}, "expected 2-d floats"),
        (vectors(5).astype(np.int64), {"dtype": "int8"}, "z is int64"),
        (vectors(5), {"dtype": "int5"}, "dtype is 'int5': it must be one of f32, f16, bf16, int8, int4"),
        (vectors(5), {"dtype": "int8", "codebook": CODEBOOK}, "a codebook is for int4, not for int8"),
        (
            vectors(5),
            {"dtype": "int4", "codebook": CODEBOOK[::-1].copy()},
            "16 finite float32 values, rising",
        ),
        (vectors(5), {"dtype": "int4", "codebook": CODEBOOK[:15]}, "16 finite float32 values, rising"),
        (vectors(5), {"dtype": "int4", "codebook": CODEBOOK.astype(float)}, "`codebook` must be .*float32"),
    ],
)
def test_what_cannot_be_stored_is_named(z, options, message):
    with pytest.raises(DataError, match=message):
        quantize(z, **options)


def test_codes_of_another_shape_are_refused():
    codes = np.zeros((5, 2), np.uint8)
    with pytest.raises(DataError, match="int4 have 2 codes a row: expected 3"):
        Vectors(stored="int4", codes=codes, dim=5)
    with pytest.raises(DataError, match="stored as 'int8' are uint8"):
        Vectors(stored="int8", codes=codes, dim=2)
    index = HistoryIndex(np.zeros(5, np.int64), np.arange(5), Vectors(stored="int4", codes=codes, dim=3))
    window = index.window(np.array([0]), np.array([9]), length=2)
    index.gather(*window, np.zeros((1, 2, 3), np.float32))
    with pytest.raises(DataError, match="`out` must be of shape"):
        index.gather(*window, np.zeros((1, 2, 6), np.float32))
