"""From a sweep file to its settings, and every way in which a file can be wrong."""

import pytest

from recfm.errors import ConfigError, DataError, SchemaError
from recfm.models import wukong, zoo
from recfm.models.wukong import WukongConfig
from recfm.sweep import Sweep
from recfm.sweep.plan import find_file, read_sweep, settings_of, shipped
from sweep_helpers import HEAD, RUNS, SYNTHETIC, sweep_file


def settings(folder, runs, overrides=(), **parts):
    return settings_of(read_sweep(sweep_file(folder, runs=runs, **parts), overrides))


def run(text, model="dnn"):
    return f'[[runs]]\nmodel = "{model}"\n{text}'


def test_a_grid_is_the_product_of_its_lists(tmp_path):
    grid = 'grid = { dropout = [0.0, 0.5], "train.learning_rate" = [0.1, 0.2], init.embedding_std = [1e-4] }'
    found = settings(tmp_path, run(f"settings = {{ dim = 3 }}\n{grid}"))
    assert [(s.config.dropout, s.train.learning_rate) for s in found] == [
        (0, 0.1),
        (0, 0.2),
        (0.5, 0.1),
        (0.5, 0.2),
    ]
    assert all(
        s.config.dim == 3 and s.init.embedding_std == 1e-4 and s.train.batch_size == 256 for s in found
    )
    assert found[1].label == "dnn dropout=0.0 train.learning_rate=0.2 init.embedding_std=0.0001"
    assert found[1].family == "dnn"


def test_a_run_overrides_the_file_and_the_grid_overrides_the_run(tmp_path):
    text = (
        'train = { epochs = 4, patience = 2 }\nseeds = [7]\nlabel = "mine"\ngrid = { "train.patience" = [3] }'
    )
    (found,) = settings(tmp_path, run(text))
    assert (found.train.epochs, found.train.patience, found.train.learning_rate) == (4, 3, 0.01)
    assert found.seeds == (7,)
    assert found.label == "mine train.patience=3"


def test_presets_can_be_named_varied_and_changed(tmp_path):
    (found,) = settings(tmp_path, run('preset = "m"\nsettings = { dim = 9 }', model="wukong"))
    assert found.config == WukongConfig(dim=9, **wukong.PRESETS["m"])
    assert found.label == "wukong-m"
    both = settings(tmp_path, run('grid = { preset = ["xs", "criteo"] }', model="wukong"))
    assert [s.config for s in both] == [WukongConfig(**wukong.PRESETS[name]) for name in ("xs", "criteo")]
    with pytest.raises(ConfigError, match="model wukong has no preset 'xxl': use one of xs, s, m"):
        settings(tmp_path, run('preset = "xxl"', model="wukong"))
    with pytest.raises(ConfigError, match="model deepfm has no preset 'xl': it has none"):
        zoo.preset("deepfm", "xl")


def test_a_key_depends_on_everything_that_decides_the_numbers_and_on_no_label(tmp_path):
    (first,) = settings(tmp_path, run(""))
    (named,) = settings(tmp_path, run('label = "other"\nfamily = "f"'))
    (more,) = settings(tmp_path, run("train = { epochs = 2 }"))
    key = first.key(0, "data", evaluate_test=False)
    assert key == named.key(0, "data", evaluate_test=False)
    others = {
        more.key(0, "data", evaluate_test=False),
        first.key(1, "data", evaluate_test=False),
        first.key(0, "date", evaluate_test=False),
        first.key(0, "data", evaluate_test=True),
    }
    assert len(others) == 4
    assert key not in others


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("", "key 'runs' is missing"),
        ("runs = []", "has no \\[\\[runs\\]\\]"),
        (run("", "dn"), "there is no model 'dn': use one of .*dnn"),
        (run("settings = { hiden = [3] }"), "model dnn: unknown key 'hiden'; did you mean 'hidden'"),
        (run("settings = { dropout = 2.0 }"), "dropout is 2.0"),
        (run("grid = { dropout = [] }"), "grid key 'dropout' has no values, so there is nothing to run"),
        (run("grid = { dropout = 0.1 }"), "grid key 'dropout' is 0.1: give a list"),
        (run('grid = { "data.rows" = [1] }'), "grid key 'data.rows': use settings.KEY, train.KEY"),
        (run('grid = { "train.epoch" = [1] }'), "unknown key 'epoch'; did you mean 'epochs'"),
        (run("train = { epoch = 1 }"), r"runs\[0\], section \[train\]: unknown key 'epoch'"),
        (run('init = { linear = "he" }'), r"section \[init\].*linear"),
        (run("seeds = [1, 1]"), r"seeds are \[1, 1\]"),
        (run("seeds = [-1]"), r"seeds are \[-1\]"),
        (run("") + "\n" + run('label = "b"'), "runs 'dnn' and 'b' are the same setting"),
        (run("") + "\n" + run("settings = { dim = 3 }"), "two runs are labelled 'dnn'"),
        (run('lable = "b"'), "unknown key 'runs.0.lable'; did you mean 'label'"),
    ],
)
def test_a_wrong_run_is_refused_by_name(tmp_path, runs, message):
    head = HEAD if runs != "runs = []" else ""
    top = "" if head else f"runs = []\n{HEAD}"
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, runs if head else "", head=head, top=top)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ("", ConfigError, "names nothing: give one of"),
        (f'{SYNTHETIC}\nevents = "x"', ConfigError, "names events and synthetic"),
        ('train = "x"', ConfigError, "not both valid and test"),
        (
            'dataset = "frape_x1"\nfolder = "x"',
            ConfigError,
            "there is no data set 'frape_x1': use one of ml-100k, .*frappe_x1",
        ),
        ('dataset = "frappe_x1"', ConfigError, "needs `folder`"),
        ('dataset = "frappe_x1"\nfolder = "none"', DataError, "none"),
        ("synthetic = { rows = 5 }", ConfigError, "rows is 5"),
        ("synthetic = { row = 5 }", ConfigError, "unknown key 'row'; did you mean 'rows'"),
        ('events = "x.parquet"', SchemaError, r"there is no \[schema\] section"),
        (f"{SYNTHETIC}\nsplit = [0.9, 0.2]", ConfigError, "split is"),
    ],
)
def test_wrong_data_is_refused(tmp_path, data, error, message):
    with pytest.raises(error, match=message):
        Sweep.open(sweep_file(tmp_path, head=HEAD.replace(SYNTHETIC, data)))


def test_a_period_of_one_class_is_refused(tmp_path):
    one_class = SYNTHETIC.replace("latent = 1", "latent = 1, bias = -20.0, scale = 0.1")
    with pytest.raises(DataError, match="the train period has only labels 0 in 2400 rows"):
        Sweep.open(sweep_file(tmp_path, head=HEAD.replace(SYNTHETIC, one_class)))


def test_files_that_come_with_recfm_are_found_by_name_and_are_whole(tmp_path):
    assert set(shipped()) == {"frappe", "frappe-search", "scaling-synthetic", "scaling-ml-1m"}
    for name in shipped():
        sweep = read_sweep(find_file(name))
        assert len(settings_of(sweep)) >= 5
        assert sweep.evaluate_test == (name != "frappe-search")
    assert find_file(sweep_file(tmp_path)) == tmp_path / "tiny.toml"
    with pytest.raises(
        ConfigError, match="there is no sweep file 'frape': give a TOML file, or one of frappe, "
    ):
        find_file("frape")


def test_the_search_shares_no_seed_with_the_final_runs():
    search, final = (read_sweep(find_file(name)) for name in ("frappe-search", "frappe"))
    assert not set(search.seeds) & set(final.seeds)
    searched = {"embedding_l2"}
    assert {k: v for k, v in search.train.items() if k not in searched} == {
        k: v for k, v in final.train.items() if k not in searched
    }


def test_the_scaling_files_hold_five_sizes_of_four_families():
    for name in ("scaling-synthetic", "scaling-ml-1m"):
        families = [setting.family for setting in settings_of(read_sweep(find_file(name)))]
        assert {family: families.count(family) for family in families} == {
            "wukong": 5, "dlrm": 5, "dcnv2": 5, "dnn": 5,
        }  # fmt: skip


def test_overrides_reach_the_file(tmp_path):
    found = read_sweep(sweep_file(tmp_path, runs=RUNS), ["seeds=[4]", "train.epochs=3", "select=ne"])
    assert (found.seeds, found.train["epochs"], found.select) == ((4,), 3, "ne")
    with pytest.raises(ConfigError, match="'select' is 'test'"):
        read_sweep(sweep_file(tmp_path, runs=RUNS), ["select=test"])
