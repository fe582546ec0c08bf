"""Compare what the data analyst's tools compute with plain definitions."""

import statistics
import warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from examples.data_analyst.measures import average, comparison, overview, summary
from examples.data_analyst.plots import KINDS, save_plot
from examples.data_analyst.rules import MISSING, OUTLIERS
from examples.data_analyst.table import Table, TableError, csv_table, diabetes_table

CSV = """name,sex,age,score
Ann,female,17,3
Bob,male,34,
Cid,male,70,5
Dora,Female,41,10
Eve,female,19,
Fay,F,66,6
"""


@pytest.fixture
def survey(tmp_path: Path) -> Table:
    """Return a small table with gaps."""
    (tmp_path / "survey.csv").write_text(CSV, encoding="utf-8")
    return csv_table(tmp_path / "survey.csv")


@pytest.fixture(scope="module")
def diabetes() -> Table:
    """Return the bundled table."""
    return diabetes_table()


def test_the_bundled_table_is_real(diabetes: Table) -> None:
    """It has the 442 rows of the study, ages in years and no gaps."""
    assert len(diabetes.frame) == 442
    assert diabetes.frame["age"].between(19, 79).all()
    assert "progression | 0 | 152.1" in overview(diabetes)


def test_groups_are_found_by_age_and_by_word(survey: Table, diabetes: Table) -> None:
    """Ages, words of a column, and the plural of a word; who cannot be found is said."""
    assert list(survey.only("adults").frame["name"]) == ["Bob", "Cid", "Dora", "Eve", "Fay"]
    assert list(survey.only("seniors").frame["name"]) == ["Cid", "Fay"]
    assert list(survey.only("Women").frame["name"]) == ["Ann", "Dora", "Eve", "Fay"]
    assert list(survey.only("men").frame["name"]) == ["Bob", "Cid"]
    assert survey.only(None) is survey
    assert survey.only("everyone") is survey
    with pytest.raises(TableError, match="cannot tell who 'nurses' are"):
        survey.only("nurses")
    with pytest.raises(TableError, match="adults, seniors, teenagers"):
        diabetes.only("women")
    with pytest.raises(TableError, match="no row"):
        Table("old", diabetes.frame[diabetes.frame["age"] > 30], None).only("teenagers")


SCORES = [3.0, None, 5.0, 10.0, None, 6.0]
FILLED = {
    "drop": [3, 5, 10, 6],
    "ignore": [3, 5, 10, 6],
    "zero": [3, 0, 5, 10, 0, 6],
    "mean": [3, 6, 5, 10, 6, 6],
    "median": [3, 5.5, 5, 10, 5.5, 6],
    "mode": [3, 3, 5, 10, 3, 6],
    "minimum": [3, 3, 5, 10, 3, 6],
    "maximum": [3, 10, 5, 10, 10, 6],
    "ffill": [3, 3, 5, 10, 10, 6],
    "bfill": [3, 5, 5, 10, 6, 6],
    "interpolate": [3, 4, 5, 10, 8, 6],
}


@pytest.mark.parametrize("rule", FILLED)
def test_each_rule_fills_gaps_as_its_name_says(survey: Table, rule: str) -> None:
    """The rules do to six scores with two gaps what one would do by hand."""
    assert list(MISSING[rule](survey.frame, "score")) == FILLED[rule]
    text = summary(survey, "score", rule)
    assert f"mean {statistics.mean(FILLED[rule]):.4g}" in text
    assert f"missing 2 ({rule})" in text


def test_every_rule_is_tested_and_knn_takes_the_nearest_rows(survey: Table) -> None:
    """With as many neighbours as rows, the nearest rows' mean is the mean of all."""
    assert set(MISSING) == {*FILLED, "knn"}
    assert list(MISSING["knn"](survey.frame, "score")) == [3, 6, 5, 10, 6, 6]


DROPPING = sorted(set(OUTLIERS) - {"clip", "cap", "winsorize"})


@settings(deadline=None, max_examples=30)
@given(values=st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=30, max_size=40))
def test_rules_for_outliers_only_drop_or_only_move(values: list[float]) -> None:
    """What is dropped is dropped whole, what is moved stays within the old range, and nothing is invented."""
    series = pd.Series(values, name="x")
    for name in DROPPING:
        if name != "isolation":  # takes a second each
            kept = OUTLIERS[name](series)
            assert kept.equals(series[kept.index])
    for name in ("clip", "cap", "winsorize"):
        moved = OUTLIERS[name](series)
        assert len(moved) == len(series)
        assert moved.between(min(values), max(values)).all()


@pytest.mark.parametrize("rule", OUTLIERS)
def test_no_rule_lets_a_gross_outlier_decide(rule: str) -> None:
    """One value of a million among a hundred small ones is dropped or moved."""
    frame = pd.DataFrame({"x": [*range(100), 1_000_000]})
    told = average(Table("t", frame, None), "x", rule)
    assert float(told.split()[1]) < 100
    assert " 0 left out" not in told


def test_compare_is_welchs_test(diabetes: Table) -> None:
    """For two groups the p-value is that of Welch's t-test, and the level decides the verdict."""
    frame = diabetes.frame
    for column in ("bp", "progression"):
        first, second = (frame[frame["sex"] == sex][column] for sex in (1, 2))
        p = float(ttest_ind(first, second, equal_var=False).pvalue)
        told = comparison(diabetes, column, "0.05")
        assert told.startswith(f"p = {p:.3g}\n")
        assert ("the groups differ" in told) == (p < 0.05)
    assert "no difference at 1e-09" in comparison(diabetes, "progression", "0.000000001")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda t: summary(t, "height", "mean"), "no column 'height'; there are name, sex, age, score"),
        (lambda t: summary(t, "name", "mean"), "holds no numbers"),
        (lambda t: summary(t, "score", "guess"), "no rule for missing values that is known here; there are drop"),
        (lambda t: average(t, "score", "cook"), "no rule for outliers"),
        (lambda t: comparison(t, "score", "5 %"), "between 0 and 1"),
        (lambda t: comparison(Table("t", t.frame, None), "score", "0.05"), "no column of 2 to 10 groups"),
        (lambda t: comparison(t.only("Bob"), "age", "0.05"), "fewer than two groups"),
    ],
)
def test_what_cannot_be_computed_is_said(survey: Table, call: object, expected: str) -> None:
    """The model reads what is wrong, and what there is instead."""
    with pytest.raises(TableError, match=expected):
        call(survey)  # type: ignore[operator] # a lambda


def test_compare_says_when_nothing_varies() -> None:
    """A test that would divide by zero is not made."""
    frame = pd.DataFrame({"g": list("aabb"), "x": [1, 1, 2, 3]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TableError, match="does not vary"):
            comparison(Table("t", frame, "g"), "x", "0.05")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_chart_is_drawn(survey: Table, tmp_path: Path, kind: str) -> None:
    """Each is a PNG whose name says what it shows; gaps are left out."""
    path = save_plot(survey.frame["score"], kind, tmp_path / "plots", rows="all")
    assert path.name == f"score_{kind}.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_words_can_be_counted_and_not_plotted_as_numbers(survey: Table, tmp_path: Path) -> None:
    """A bar chart of words counts them; a line needs numbers; a column's name cannot leave the folder."""
    assert save_plot(survey.frame["sex"], "bar", tmp_path, rows="all").exists()
    with pytest.raises(TableError, match="needs numbers"):
        save_plot(survey.frame["sex"], "line", tmp_path, rows="all")
    with pytest.raises(TableError, match="no kind of chart"):
        save_plot(survey.frame["score"], "radar", tmp_path, rows="all")
    strange = survey.frame["score"].rename("../../x")
    assert save_plot(strange, "box", tmp_path / "plots", rows="all").parent == tmp_path / "plots"


def test_columns_of_a_users_file_are_made_usable(tmp_path: Path) -> None:
    """Names become unique, truths numbers and infinite values gaps; every rule and chart then works on them."""
    (tmp_path / "wild.csv").write_text(
        "Age, age,,smokes,known,rate\n" + "30,31,x,True,,inf\n41,40,y,False,True,-inf\n52,50,z,True,False,0.5\n" * 3,
        encoding="utf-8",
    )
    wild = csv_table(tmp_path / "wild.csv")
    assert list(wild.frame.columns[:2]) == ["Age", "age 2"]
    assert len({column.lower() for column in wild.frame.columns}) == 6
    assert wild.frame["rate"].isna().sum() == 6
    assert wild.frame["known"].isna().sum() == 3
    for column in ("smokes", "known", "rate"):
        for rule in MISSING:
            assert "mean " in summary(wild, column, rule)
        for rule in OUTLIERS:
            assert "mean " in average(wild, column, rule)
        for kind in KINDS:
            assert save_plot(wild.frame[column], kind, tmp_path, rows="all").exists()


@pytest.mark.parametrize(
    "text", ["a;b\n1,5;x\n2,5;y\n", "a\tb\n1.5\tx\n2.5\ty\n", "a|b\n1.5|x\n2.5|y\n", "a;b\n1.5;x\n2.5;y\n"]
)
def test_the_separator_of_a_file_is_found(tmp_path: Path, text: str) -> None:
    """Semicolons, also with decimal commas, tabs and bars separate columns as commas do."""
    (tmp_path / "survey.csv").write_text(text, encoding="utf-8")
    survey = csv_table(tmp_path / "survey.csv")
    assert survey.frame["a"].mean() == 2
    assert survey.grouping == "b"


@pytest.mark.parametrize("text", ["", "a,b\n", '"\n', "\x00\xff\xfe"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    """An empty file, a header without rows, and what is no CSV at all."""
    (tmp_path / "bad.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(TableError):
        csv_table(tmp_path / "bad.csv")
    with pytest.raises(TableError):
        csv_table(tmp_path / "missing.csv")
