"""No subject is in two parts; parts agree in size, diagnosis, sex and age."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import scan_row
from pandas.testing import assert_frame_equal

from adpet.cohort.scans import scans_table
from adpet.cohort.splits import (
    SPLIT_COLUMNS,
    assign_slices,
    check_disjoint,
    cross_validation_folds,
    cross_validation_parts,
    fold_name,
    fold_parts,
    read_split,
    split_by_slice,
    split_by_subject,
    split_hash,
    split_summary,
    write_split,
)
from adpet.errors import InputError, LeakageError
from adpet.storage import read_yaml

AGE_SD = 7.0


def cohort(seed, *, ad=60, cn=60, women=0.5, unknown_ages=0):
    rng = np.random.default_rng(seed)
    count = ad + cn
    ages = rng.normal(75, AGE_SD, count).round(1)
    ages[rng.permutation(count)[:unknown_ages]] = np.nan
    return pd.DataFrame(
        {
            "subject": [f"{number:04d}" for number in rng.permutation(count)],
            "diagnosis": ["AD"] * ad + ["CN"] * cn,
            "age": ages,
            "sex": np.where(rng.random(count) < women, "F", "M"),
        }
    )


def scans_of(subjects, visits=1):
    rows = subjects.to_dict("records")
    return scans_table([scan_row(**row, session=str(visit)) for row in rows for visit in range(visits)])


def slices_of(scans, planes=4):
    return pd.DataFrame(
        [(scan, index, -80.0 + index) for scan in scans["scan"] for index in range(planes)],
        columns=["scan", "index", "y_mm"],
    )


def labelled_slices(subjects, visits=1, planes=4):
    scans = scans_of(subjects, visits)
    return slices_of(scans, planes).merge(scans[["scan", "subject", "diagnosis"]], on="scan")


def split_of(subjects, visits=1, planes=4, **options):
    scans = scans_of(subjects, visits)
    parts = split_by_subject(subjects, **{"test_fraction": 0.25, "folds": 5, "seed": 1, **options})
    return assign_slices(slices_of(scans, planes), scans, parts)


def parts_a_subject(split):
    return split.drop_duplicates(["subject", "part"])["subject"].value_counts()


SETTINGS = st.fixed_dictionaries(
    {
        "test_fraction": st.sampled_from([0.1, 0.2, 0.25, 0.5]),
        "folds": st.integers(2, 6),
        "seed": st.integers(0, 99),
    }
)


def shares(options):
    rest = (1 - options["test_fraction"]) / options["folds"]
    return {"test": options["test_fraction"]} | {fold_name(fold): rest for fold in range(options["folds"])}


class TestSplitBySubject:
    @settings(max_examples=30)
    @given(options=SETTINGS, seed=st.integers(0, 99), ad=st.integers(40, 90), women=st.floats(0.2, 0.8))
    def test_it_is_complete_and_every_part_is_as_large_as_it_should_be(self, options, seed, ad, women):
        subjects = cohort(seed, ad=ad, women=women)
        parts = split_by_subject(subjects, **options)
        assert sorted(parts["subject"]) == sorted(subjects["subject"])
        assert set(parts["part"]) == set(shares(options))
        joined = parts.merge(subjects[["subject", "sex"]], on="subject")
        for part, share in shares(options).items():
            own = joined[joined["part"] == part]
            assert abs(len(own) - share * len(joined)) <= 2
            for diagnosis in ("AD", "CN"):
                group = joined[joined["diagnosis"] == diagnosis]
                assert abs((own["diagnosis"] == diagnosis).sum() - share * len(group)) <= 2.5
                women_due = share * (group["sex"] == "F").sum()
                assert abs(((own["diagnosis"] == diagnosis) & (own["sex"] == "F")).sum() - women_due) <= 3

    @settings(max_examples=20)
    @given(options=SETTINGS, seed=st.integers(0, 99))
    def test_ages_agree_over_the_parts(self, options, seed):
        subjects = cohort(seed, ad=120, cn=120)
        ages = split_by_subject(subjects, **options).merge(subjects[["subject", "age"]], on="subject")
        for (_, _), own in ages.groupby(["part", "diagnosis"]):
            reference = ages.loc[ages["diagnosis"] == own["diagnosis"].iloc[0], "age"].mean()
            # Of a simple random sample of n the mean is off by more than 2 SD / sqrt(n) once in 20 times.
            assert abs(own["age"].mean() - reference) < 2 * AGE_SD / np.sqrt(len(own))

    @settings(max_examples=20)
    @given(options=SETTINGS, order=st.integers(0, 99))
    def test_order_of_rows_does_not_matter(self, options, order):
        subjects = cohort(7, unknown_ages=10)
        shuffled = subjects.sample(frac=1, random_state=order)
        assert_frame_equal(split_by_subject(subjects, **options), split_by_subject(shuffled, **options))

    @settings(max_examples=20)
    @given(few=st.integers(3, 5), group=st.sampled_from(["AD", "CN"]), seed=st.integers(0, 99))
    def test_too_few_subjects_of_a_diagnosis_are_refused_with_settings_that_do(self, few, group, seed):
        subjects = cohort(seed, **{group.lower(): few})
        found = rf"required {group} in each of 6 parts; received {few} of it.*folds to (\d) .*fraction to ([\d.]+), or"
        with pytest.raises(InputError, match=found) as refused:
            split_by_subject(subjects, test_fraction=0.25, folds=5, seed=seed)
        folds, share = re.search(found, str(refused.value)).groups()
        split_by_subject(subjects, test_fraction=float(share), folds=int(folds), seed=seed)
        with pytest.raises(InputError, match=rf"cross_validation: required 0, or at most the {few} subjects"):
            cross_validation_folds(subjects, folds=few + 1, seed=seed)

    def test_subject_with_two_rows_is_refused(self):
        subjects = pd.concat([cohort(1), cohort(1).head(1)])
        with pytest.raises(InputError, match="one row a subject; received two of"):
            split_by_subject(subjects, test_fraction=0.25, folds=5, seed=1)


class TestAssignSlices:
    def test_all_slices_of_a_subject_follow_it(self):
        split = split_of(cohort(1), visits=2, planes=3)
        assert {column: str(dtype) for column, dtype in split.dtypes.items()} == SPLIT_COLUMNS
        assert len(split) == 120 * 2 * 3
        assert parts_a_subject(split).max() == 1
        check_disjoint(split)

    @pytest.mark.parametrize("table", ["scans", "subjects"])
    def test_slice_without_scan_or_subject_is_refused(self, table):
        scans = scans_of(cohort(1))
        slices, tables = slices_of(scans), {"scans": scans}
        tables["subjects"] = split_by_subject(cohort(1), test_fraction=0.25, folds=5, seed=1)
        tables[table] = tables[table][tables[table]["subject"] != "0000"]
        with pytest.raises(
            InputError, match=f"slices of sub-0000_ses-0: required a row in the table of {table}"
        ):
            assign_slices(slices, tables["scans"], tables["subjects"])


class TestSplitBySlice:
    options = {"test_fraction": 0.2, "folds": 4, "seed": 1}

    def test_fraction_of_the_images_of_each_class_is_tested(self):
        split = split_by_slice(labelled_slices(cohort(1, ad=50, cn=30)), **self.options)
        counts = split.groupby(["diagnosis", "part"]).size()
        assert counts["AD", "test"] == 40
        assert counts["CN", "test"] == 24
        assert set(counts["AD"]) == {40}

    @pytest.mark.parametrize("preset", ["protocol-2019", "protocol-2019-small"])
    def test_split_by_slice_leaks_subjects(self, project_root, preset):
        asked = read_yaml(project_root / f"presets/{preset}.yaml")["split"]
        assert asked.pop("unit") == "slice"
        split = split_by_slice(labelled_slices(cohort(1), planes=31), **asked, seed=1)
        assert (parts_a_subject(split) > 1).mean() > 0.9
        with pytest.raises(LeakageError):
            check_disjoint(split)
        summary = split_summary(split, scans_of(cohort(1)))
        assert (summary["unit"], summary["leaky"]) == ("slice", True)

    def test_without_folds_there_is_a_test_set_and_a_training_set(self):
        split = split_by_slice(labelled_slices(cohort(1)), test_fraction=0.2, folds=0, seed=1)
        assert split["part"].value_counts().to_dict() == {"train": 384, "test": 96}


@settings(max_examples=20)
@given(row=st.integers(0, 479), data=st.data())
def test_one_slice_on_another_side_is_found(row, data):
    split = split_of(cohort(1))
    others = sorted(set(split["part"]) - {split.loc[row, "part"]})
    split.loc[row, "part"] = data.draw(st.sampled_from(others))
    with pytest.raises(LeakageError, match=f"subject {split.loc[row, 'subject']} in"):
        check_disjoint(split)


class TestSummary:
    def test_split_by_subject_is_described(self):
        subjects = cohort(1, ad=60, cn=40)
        split = split_of(subjects, visits=2, planes=3)
        summary = split_summary(split, scans_of(subjects, 2))
        assert (summary["unit"], summary["leaky"]) == ("subject", False)
        assert list(summary["parts"]) == ["fold-0", "fold-1", "fold-2", "fold-3", "fold-4", "test"]
        test = summary["parts"]["test"]
        assert (test["subjects"], test["AD"], test["CN"]) == (25, 15, 10)
        assert (test["scans"], test["slices"], test["sites"]) == (50, 150, {"A": 25})
        own = subjects[subjects["subject"].isin(split.loc[split["part"] == "test", "subject"])]
        assert test["age_mean"] == pytest.approx(own["age"].mean(), abs=0.01)
        assert test["women"] == pytest.approx((own["sex"] == "F").mean(), abs=1e-4)
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary

    def test_hash_is_of_the_rows_not_of_their_order(self):
        split = split_of(cohort(1))
        shuffled = split.sample(frac=1, random_state=1)
        assert split_hash(split) == split_hash(shuffled) == split_summary(split, scans_of(cohort(1)))["hash"]


class TestFiles:
    def test_split_comes_back_exactly(self, tmp_path):
        split = split_of(cohort(1).replace({"subject": {"0001": "NA", "0002": "ä,b"}}))
        write_split(tmp_path / "split.csv", split)
        back = read_split(tmp_path / "split.csv")
        assert_frame_equal(back, split)
        assert split_hash(back) == split_hash(split)

    @pytest.mark.parametrize(
        ("column", "value", "required"),
        [
            ("part", "validation", "required test, train or fold-<number>; received 'validation'"),
            ("part", "fold-01", "required test, train or fold-<number>"),
            ("diagnosis", "MCI", "required AD or CN; received 'MCI'"),
            ("index", 1, "required a slice that occurs once"),
            ("index", -1, "required a slice that occurs once"),
        ],
    )
    def test_bad_cell_is_named_on_reading(self, tmp_path, column, value, required):
        split = split_of(cohort(1))
        split.loc[0, column] = value
        split.to_csv(tmp_path / "split.csv", index=False)
        with pytest.raises(InputError, match=rf"split\.csv: .*column {column}: {required}"):
            read_split(tmp_path / "split.csv")


@settings(max_examples=30)
@given(count=st.integers(40, 120), folds=st.integers(3, 10), seed=st.integers(0, 100))
def test_folds_are_equal_balanced_and_together_everybody(count, folds, seed):
    subjects = cohort(seed, ad=count // 2, cn=count // 2)
    found = cross_validation_folds(subjects, folds=folds, seed=seed)
    assert found["subject"].tolist() == sorted(subjects["subject"])
    sizes = found["fold"].value_counts()
    assert sorted(sizes.index) == list(range(folds))
    assert sizes.max() - sizes.min() <= 3
    cases = found.groupby("fold")["diagnosis"].agg(lambda group: (group == "AD").mean())
    assert cases.between(0.2, 0.8).all()


@settings(max_examples=30)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=5),
    moved=st.integers(0, 6),
    seed=st.integers(0, 100),
)
def test_each_large_site_is_left_out_by_networks_that_saw_nobody_of_it(sizes, moved, seed):
    sizes = [(5 + moved, 5), (5, 9), *sizes]
    rows = [
        (f"S{site}", diagnosis)
        for site, pair in enumerate(sizes)
        for diagnosis, count in zip(("AD", "CN"), pair, strict=True)
        for _ in range(count)
    ]
    scans = pd.DataFrame(rows, columns=["site", "diagnosis"]).assign(age=70.0, sex="F")
    scans["subject"] = [f"{number:03d}" for number in range(len(scans))]
    # The first AD people of S0 were scanned at S1 too.
    scans = pd.concat([scans, scans.head(moved).assign(site="S1")], ignore_index=True)
    scans["scan"] = scans["subject"] + scans["site"]
    found = cross_validation_parts(scans, folds="site", seed=seed)
    assert list(found) == [f"S{site}" for site, pair in enumerate(sizes) if min(pair) >= 5]
    twice = set(scans["subject"].head(moved))
    for site, parts in found.items():
        here = set(scans.loc[scans["site"] == site, "subject"])
        by_part = parts.groupby("part")["subject"].agg(set)
        assert by_part["test"] == here - twice
        assert not (by_part["train"] | by_part["validation"]) & here
        people = scans.drop_duplicates("subject").set_index("subject")["diagnosis"]
        assert all(set(people[list(members)]) == {"AD", "CN"} for members in by_part)


def test_one_site_cannot_be_left_out():
    with pytest.raises(InputError, match="required two sites with 5 subjects of each diagnosis; received 1"):
        cross_validation_parts(
            cohort(1).assign(site="S1", scan=lambda table: table["subject"]), folds="site", seed=0
        )


def test_each_subject_is_tested_once_validates_once_and_never_both():
    found = cross_validation_folds(cohort(1, ad=20, cn=20), folds=4, seed=0)
    parts = pd.DataFrame(
        {fold: fold_parts(found, fold=fold).set_index("subject")["part"] for fold in range(4)}
    )
    for part, times in (("test", 1), ("validation", 1), ("train", 2)):
        assert ((parts == part).sum(axis=1) == times).all()
