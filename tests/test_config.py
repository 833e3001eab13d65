"""Config files: nested values, overrides, and errors that name the key and what to write instead."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfm.config import Strict, parse, read_toml
from recfm.errors import ConfigError, SchemaError
from recfm.loop import LoopConfig
from recfm.periods import PeriodConfig


@dataclass(kw_only=True, slots=True)
class Oven(Strict):
    """An inner section."""

    heat: float = 180.0
    minutes: int = 20

    def __post_init__(self):
        if self.minutes < 1:
            raise ConfigError(f"minutes is {self.minutes}: it must be at least 1")


@dataclass(kw_only=True, slots=True)
class Cake(Strict):
    """An outer section."""

    name: str
    shape: Literal["round", "square"] = "round"
    layers: tuple[str, ...] = ()
    oven: Oven = field(default_factory=Oven)


def cake(**fields):
    return parse(Cake, {"name": "plum"} | fields, what="cake.toml")


def test_nested_values_are_read_and_the_rest_keeps_its_default():
    read = cake(layers=["dough", "plums"], oven={"minutes": 35})
    assert read == Cake(name="plum", layers=("dough", "plums"), oven=Oven(heat=180.0, minutes=35))
    assert isinstance(read.oven, Oven)
    assert cake(oven={"heat": 200}).oven.heat == 200.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nmae": "x"}, "cake.toml: unknown key 'nmae'.*did you mean 'name'"),
        ({"oven": {"minuts": 3}}, "unknown key 'oven.minuts'.*did you mean '(oven.)?minutes'"),
        ({"oven": {"qqq": 3}}, "unknown key 'oven.qqq'.*heat.*minutes"),
        ({"oven": 3}, "'oven' is 3"),
        ({"oven": {"minutes": "3"}}, "'oven.minutes' is '3'.*integer"),
        ({"oven": {"minutes": 3.5}}, "'oven.minutes' is 3.5.*integer"),
        ({"oven": {"minutes": True}}, "'oven.minutes' is True.*integer"),
        ({"oven": {"minutes": None}}, "'oven.minutes' is None"),
        ({"oven": {"heat": "hot"}}, "'oven.heat' is 'hot'.*number"),
        ({"oven": {"minutes": -1}}, "minutes is -1: it must be at least 1"),
        ({"oven": {"heat": float("nan")}}, "heat"),
        ({"oven": {"heat": float("inf")}}, "heat"),
        ({"layers": "dough"}, "'layers' is 'dough'"),
        ({"layers": [1]}, "'layers.0' is 1"),
        ({"shape": "heart"}, "'shape' is 'heart'.*'round' or 'square'"),
        ({"name": None}, "'name' is None"),
    ],
)
def test_a_value_that_does_not_fit_is_named(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        cake(**fields)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match="'name' is missing"):
        parse(Cake, {}, what="cake.toml")


def test_the_caller_chooses_the_error():
    with pytest.raises(SchemaError, match="unknown key 'x'"):
        parse(Cake, {"name": "plum", "x": 1}, what="cake", error=SchemaError)


@pytest.mark.parametrize("fields", [[], [1], None, 3, "text"])
def test_a_config_that_is_no_table_is_refused(fields):
    with pytest.raises(ConfigError, match=r"cake\.toml"):
        parse(Cake, fields, what="cake.toml")


def test_a_known_key_in_the_wrong_section_is_not_its_own_suggestion():
    with pytest.raises(ConfigError, match="unknown key 'minutes'") as caught:
        cake(minutes=3)
    assert "did you mean 'minutes'" not in str(caught.value)


# ---- the settings of a run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize(
    "key",
    ["delay", "vm_train.learning_rate", "vm_train.weight_decay", "periods.fm", "periods.vm", "periods.validation",
     "fm.dropout", "dnn.dropout", "kd.weight"],
)  # fmt: skip
def test_numbers_of_a_run_that_make_no_sense_are_refused(key, value):
    fields: dict = {}
    *sections, name = key.split(".")
    inner = fields
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[name] = value
    with pytest.raises(ConfigError, match=name):
        parse(LoopConfig, fields, what="run.toml")


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize(
    "key", ["length", "z_dim", "z_hidden", "vm_train.epochs", "vm_train.batch_size", "vm_train.patience",
            "fm.dim", "fm.layers", "history.width"]
)  # fmt: skip
def test_counts_of_a_run_start_at_one(key, value):
    *sections, name = key.split(".")
    fields = {sections[0]: {name: value}} if sections else {name: value}
    with pytest.raises(ConfigError, match=name):
        parse(LoopConfig, fields, what="run.toml")


@pytest.mark.parametrize(
    "shares",
    [{"fm": 0.0}, {"vm": 0.0}, {"fm": 0.7, "vm": 0.3}, {"fm": -0.1}, {"validation": 0.0}, {"validation": 1.0},
     {"fm": float("nan")}, {"vm": float("inf")}, {"validation": float("nan")}],
)  # fmt: skip
def test_shares_of_the_periods_leave_a_test_period(shares):
    with pytest.raises(ConfigError, match=f"{next(iter(shares))}"):
        PeriodConfig(**shares)


# ---- files and overrides ---------------------------------------------------------------------------------------


def toml(folder, text):
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_overrides_reach_sections_and_keep_their_types(tmp_path):
    path = toml(tmp_path, 'name = "plum"\n[oven]\nminutes = 20\n')
    fields = read_toml(
        path, ["oven.minutes=35", "oven.heat = 1e2", "shape=square", 'layers=["a", "b"]', "name='quoted'"]
    )
    assert fields == {
        "name": "quoted",
        "oven": {"minutes": 35, "heat": 100.0},
        "shape": "square",
        "layers": ["a", "b"],
    }
    assert parse(Cake, fields, what="cake").oven.minutes == 35
    assert read_toml(path)["oven"] == {"minutes": 20}


def test_the_last_override_wins_and_sections_are_made(tmp_path):
    path = toml(tmp_path, "")
    assert read_toml(path, ["a.b.c=1", "a.b.d=2", "a.b.c=3"]) == {"a": {"b": {"c": 3, "d": 2}}}


keys = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3)
words = st.text("abc xyz=.#'é日", max_size=6)
values = (
    st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | words
)


@settings(deadline=None, max_examples=100)
@given(overrides=st.lists(st.tuples(keys, values | st.lists(values, max_size=3)), max_size=5))
def test_overrides_are_plain_assignments(tmp_path_factory, overrides):
    path = toml(tmp_path_factory.getbasetemp(), "")
    texts = [f"{'.'.join(k)}={json.dumps(v, ensure_ascii=False)}" for k, v in overrides]
    expected: dict = {}
    fits = True
    for sections, value in overrides:
        inner = expected
        for section in sections[:-1]:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                fits = False
                break
        if not fits:
            break
        inner[sections[-1]] = value
    if fits:
        assert read_toml(path, texts) == expected
    else:
        with pytest.raises(ConfigError, match="is a value, not a section"):
            read_toml(path, texts)


@pytest.mark.parametrize("override", ["oven.minutes", "=3", "", "oven.minutes:3"])
def test_an_override_without_key_or_value_is_refused(tmp_path, override):
    with pytest.raises(ConfigError, match=r"override .*key=value"):
        read_toml(toml(tmp_path, ""), [override])


@pytest.mark.parametrize("override", ["a..b=1", ".a=1", "a.=1", " =1"])
def test_an_override_with_an_empty_section_is_refused(tmp_path, override):
    with pytest.raises(ConfigError, match=r"override|unknown key"):
        parse(Cake, {"name": "x"} | read_toml(toml(tmp_path, ""), [override]), what="cake")


@pytest.mark.parametrize("text", ["name = ", "[oven", "name = 1\nname = 2", "x = 'open"])
def test_a_malformed_file_is_named(tmp_path, text):
    with pytest.raises(ConfigError, match=r"run.toml' cannot be read as TOML"):
        read_toml(toml(tmp_path, text))


def test_files_that_are_no_text_are_named(tmp_path):
    (tmp_path / "run.toml").write_bytes(b"name = '\xff'")
    for path in (tmp_path / "run.toml", tmp_path):
        with pytest.raises(ConfigError, match=f"{path.name}' cannot be read"):
            read_toml(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file .*nowhere.toml"):
        read_toml(tmp_path / "nowhere.toml")
