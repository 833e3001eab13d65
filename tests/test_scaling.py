"""Power laws against planted ones, and what is said about where they bend."""

import numpy as np
import pytest

from recfm.report import scaling

FLOPS = np.geomspace(1e5, 3e7, 6)


def runs(ne, *, family="wukong", seeds=1, std=0.0, tested=True, flops=FLOPS, rng=None):
    """Records of a sweep: one label for each size, `seeds` runs of each."""
    rng = rng or np.random.default_rng(0)
    out = []
    for number, (c, value) in enumerate(zip(flops, ne, strict=True)):
        for _ in range(seeds):
            metrics = {"ne": value + rng.normal(0, std), "auc": 1 - value, "logloss": value, "gauc": None}
            out.append(
                {
                    "family": family,
                    "label": f"{family} {number}",
                    "status": "done",
                    "training_flops_per_example": c,
                    "valid": {**metrics, "ne": metrics["ne"] + 1},
                    "test": metrics if tested else None,
                }
            )
    return out


def law(a, b, c):
    return a + b * (FLOPS / 1e6) ** -c


@pytest.mark.parametrize(("a", "b", "c"), [(0.7, 0.1, 0.4), (0.5, 0.3, 0.2), (0.0, 0.9, 0.05)])
def test_a_planted_law_is_found_again(a, b, c):
    rng = np.random.default_rng(1)
    flops = np.repeat(FLOPS, 4)
    found = scaling.fit_power_law(flops, a + b * (flops / 1e6) ** -c + rng.normal(0, 1e-4, len(flops)))
    assert found.identified == (a > 0)
    np.testing.assert_allclose(found(FLOPS), law(a, b, c), atol=5e-4)
    assert found.exponent == pytest.approx(c, rel=0.1)
    assert found.exponent_interval[0] <= found.exponent <= found.exponent_interval[1]
    assert found.floor == pytest.approx(a, abs=0.02)
    assert found.residual_std == pytest.approx(1e-4, rel=0.6)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(2), 0
    flops = np.repeat(FLOPS, 3)
    for _ in range(40):
        noisy = 0.9 * (flops / 1e6) ** -0.03 + rng.normal(0, 1e-3, len(flops))
        low, high = scaling.fit_power_law(flops, noisy).exponent_interval
        hits += low <= 0.03 * 1.02 and high >= 0.03 * 0.98  # steps of the grid
    assert hits >= 32


def test_noise_about_a_straight_line_identifies_no_floor():
    rng = np.random.default_rng(3)
    found = scaling.fit_power_law(FLOPS, 0.9 * (FLOPS / 1e6) ** -0.01 + rng.normal(0, 2e-3, len(FLOPS)))
    assert not found.identified
    assert found.floor == 0


def test_the_best_law_of_the_grid_is_found():
    """Against numpy's least squares for every exponent, with a kept at 0 or above."""
    rng = np.random.default_rng(4)
    y = law(0.6, 0.2, 0.3) + rng.normal(0, 0.01, len(FLOPS))
    powers = (FLOPS / 1e6)[None, :] ** -scaling._EXPONENTS[:, None]
    a, b, at = scaling._least_squares(powers, y[None, :], with_floor=True)
    errors = []
    for x in powers:
        (a_free, b_free), *_ = np.linalg.lstsq(np.stack([np.ones_like(x), x], axis=1), y, rcond=None)
        if a_free < 0:
            a_free, b_free = 0, (x @ y) / (x @ x)
        errors.append(((y - a_free - b_free * x) ** 2).sum())
    assert ((y - a[0] - b[0] * powers[at[0]]) ** 2).sum() == pytest.approx(min(errors), rel=1e-6)


@pytest.mark.parametrize(("sizes", "fits"), [(2, False), (3, True)])
def test_three_sizes_are_needed(sizes, fits):
    found = scaling.fit_power_law(FLOPS[:sizes], law(0.7, 0.1, 0.4)[:sizes])
    assert (found is not None) == fits
    assert found is None or not found.identified  # three points always fit three parameters


def test_points_hold_mean_and_deviation_by_compute():
    shuffled = runs(law(0.7, 0.1, 0.4), seeds=3, std=0.01)[::-1]
    family = scaling.analyse(shuffled)["families"][0]
    assert [point["flops"] for point in family["points"]] == sorted(FLOPS)
    first = [run["test"]["ne"] for run in shuffled if run["label"] == "wukong 0"]
    assert family["points"][0]["ne"] == pytest.approx(np.mean(first))
    assert family["points"][0]["ne_std"] == pytest.approx(np.std(first, ddof=1))
    assert family["noise"] == pytest.approx(0.01, rel=0.5)


def test_without_test_rows_the_validation_rows_are_drawn():
    found = scaling.analyse(runs(law(0.7, 0.1, 0.4), tested=False))
    assert found["period"] == "valid"
    assert found["families"][0]["points"][0]["ne"] == pytest.approx(law(0.7, 0.1, 0.4)[0] + 1)


def test_the_law_bends_where_a_doubling_gains_the_noise():
    found = scaling.analyse(runs(law(0.7, 0.1, 0.4), seeds=3, std=1e-3))["families"][0]
    curve = scaling.PowerLaw(**found["law"])
    flat = found["bend"]["flat_from"]
    assert float(curve(flat) - curve(2 * flat)) == pytest.approx(found["noise"], rel=1e-6)


def test_a_flat_step_is_named():
    ne = law(0.5, 0.3, 0.3)
    ne[4:] = ne[3] + 1e-3
    found = scaling.analyse(runs(ne, seeds=2, std=1e-5))
    assert found["families"][0]["bend"]["first_flat"] == "wukong 3"
    assert any("bends after wukong 3" in sentence for sentence in scaling.sentences(found))
    straight = scaling.sentences(scaling.analyse(runs(law(0.5, 0.3, 0.3), seeds=2, std=1e-5)))
    assert any("no bend among these sizes" in sentence for sentence in straight)


def test_settings_of_one_size_count_once():
    found = scaling.analyse(runs([0.8, 0.7, 0.7], flops=[1e6, 2e6, 2e6]))
    assert "wukong: 2 sizes are too few for a power law." in scaling.sentences(found)


def test_failed_runs_and_single_sizes_make_no_law():
    one = runs([0.8], flops=[1e6])
    assert scaling.analyse(one) is None
    assert scaling.sentences(None) == []
    failed = [{**run, "status": "failed"} for run in runs(law(0.7, 0.1, 0.4))]
    assert scaling.analyse([*one, *failed]) is None


def test_the_picture_is_a_png_even_with_dollars_in_names():
    found = scaling.analyse(
        runs(law(0.7, 0.1, 0.4), family="a$b", seeds=2, std=0.01) + runs([0.8], family="x", flops=[1e6])
    )
    floor = {"test": {"ne": 0.6, "auc": 0.9}}
    picture = scaling.png({"title": "$x$", "scaling": found, "protocol": {"floor": floor}})
    assert picture.startswith(b"\x89PNG")
