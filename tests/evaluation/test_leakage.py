"""Leakage test: honest arms, uninformative labels, a reliable verdict."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adpet.cohort.splits import check_disjoint
from adpet.evaluation.leakage import (
    ARMS,
    CHANCE_LEVEL,
    SLICE_SPLIT_SHUFFLED,
    SUBJECT_SPLIT,
    SUBJECT_SPLIT_SHUFFLED,
    chance_test,
    leakage_arms,
    leakage_test,
    shuffled_labels,
    verdict,
)

PLANES = 8
SEEDS = st.integers(0, 2**32 - 1)


def people(ad=20, cn=20):
    rng = np.random.default_rng(0)
    diagnosis = ["AD"] * ad + ["CN"] * cn
    return pd.DataFrame(
        {
            "subject": [f"{number:03d}" for number in rng.permutation(ad + cn)],
            "diagnosis": diagnosis,
            "age": rng.normal(75, 7, ad + cn),
            "sex": rng.choice(["F", "M"], ad + cn),
        }
    )


def slices_of(subjects, planes=PLANES):
    rows = [
        (f"sub-{subject}", index, subject, diagnosis)
        for subject, diagnosis in zip(subjects["subject"], subjects["diagnosis"], strict=True)
        for index in range(planes)
    ]
    return pd.DataFrame(rows, columns=["scan", "index", "subject", "diagnosis"])


def arms_of(subjects, seed=0, **options):
    return leakage_arms(slices_of(subjects, **options), subjects, test_fraction=0.25, seed=seed)


def truth_of(subjects):
    return dict(zip(subjects["subject"], subjects["diagnosis"], strict=True))


class TestArms:
    @settings(max_examples=15)
    @given(ad=st.integers(2, 30), cn=st.integers(2, 30), seed=SEEDS)
    def test_subject_split_shares_no_subject_and_arms_test_the_same_share(self, ad, cn, seed):
        arms = arms_of(people(ad, cn), seed)
        assert tuple(arms) == ARMS
        for name in (SUBJECT_SPLIT, SUBJECT_SPLIT_SHUFFLED):
            check_disjoint(arms[name])
        for table in arms.values():
            # Of each diagnosis and sex, a part's share of subjects is right to two or three.
            assert (table["part"] == "test").mean() == pytest.approx(0.25, abs=2 / min(ad, cn))
            assert set(table["diagnosis"]) == {"AD", "CN"}

    @settings(max_examples=15)
    @given(ad=st.integers(8, 30), cn=st.integers(8, 30), seed=SEEDS)
    def test_shuffled_labels_are_balanced_and_independent_of_the_diagnosis(self, ad, cn, seed):
        subjects = people(ad, cn)
        arms = arms_of(subjects, seed)
        by_arm = []
        for name in (SUBJECT_SPLIT_SHUFFLED, SLICE_SPLIT_SHUFFLED):
            labels = arms[name].groupby("subject")["diagnosis"]
            assert labels.nunique().max() == 1
            by_arm.append(labels.first())
        assert by_arm[0].equals(by_arm[1])
        parts = arms[SUBJECT_SPLIT].groupby("subject")["part"].first()
        said = subjects.set_index("subject").assign(part=parts, label=by_arm[0])
        for _, part in said.groupby("part"):
            assert abs((part["label"] == "AD").sum() - (part["label"] == "CN").sum()) <= 1
            for _, group in part.groupby("diagnosis"):
                assert abs((group["label"] == "AD").sum() - (group["label"] == "CN").sum()) <= 1


@pytest.mark.parametrize(
    ("change", "name", "numbers", "reason"),
    [
        ({}, "clean", (1, 1), "new subjects are at chance"),
        ({"p": 1e-4}, "invalid", (0, 1), "something tells the network their labels"),
        ({"p": 1e-4, "fitted": 0.7}, "invalid", (0, 0), "something tells the network their labels"),
        (
            {"fitted": 0.72},
            "inconclusive",
            (1, 0),
            "never fitted the shuffled labels (training accuracy 0.72",
        ),
        ({"smallest_p": 0.25}, "inconclusive", (1, 0), "too few subjects were tested"),
    ],
)
def test_verdict_follows_from_chance_fit_and_number_of_subjects(change, name, numbers, reason):
    found = verdict(**{"p": 0.5, "smallest_p": 1e-4, "fitted": 1.0} | change)
    assert (found["verdict"], (found["valid"], found["conclusive"])) == (name, numbers)
    assert reason in found["reason"]


class TestChance:
    @staticmethod
    def predictions(subjects, labels, probability):
        table = slices_of(subjects)
        table["diagnosis"] = table["subject"].map(labels)
        return table.assign(probability=table["subject"].map(probability))

    def test_knowing_the_shuffled_labels_but_not_the_diagnosis_is_significant(self):
        subjects = people(8, 8)
        truth, labels = truth_of(subjects), shuffled_labels(subjects.assign(part="test"), seed=0)
        found = []
        for known in (labels, truth):
            answers = {subject: 0.9 if label == "AD" else 0.1 for subject, label in known.items()}
            found.append(chance_test(self.predictions(subjects, labels, answers), truth, seed=0))
        (p, smallest), (p_of_truth, _) = found
        assert p < CHANCE_LEVEL / 10
        assert smallest == pytest.approx(1 / 70**2)
        assert p_of_truth == 1

    def test_false_alarm_rate_is_at_most_the_level(self):
        subjects = people(8, 8)
        ps = []
        for seed in range(300):
            labels = shuffled_labels(subjects.assign(part="test"), seed=seed)
            guessed = dict(zip(labels, np.random.default_rng([1, seed]).random(16), strict=True))
            table = self.predictions(subjects, labels, guessed)
            ps.append(chance_test(table, truth_of(subjects), seed=seed, relabellings=400)[0])
        assert np.mean(np.array(ps) < CHANCE_LEVEL) < 0.025
        assert 0.1 < np.mean(np.array(ps) < 0.3) < 0.35


class TestLearners:
    """Learners with a known leak."""

    @staticmethod
    def pixels(table, subjects, *, individual, disease):
        """Make a slice: its subject's own pattern, the disease where it truly is, and noise."""
        rng = np.random.default_rng(0)
        patterns = {subject: rng.normal(size=60) for subject in sorted(subjects["subject"])}
        truth = truth_of(subjects)
        common = np.random.default_rng(1).normal(size=60)
        return np.array(
            [
                individual * patterns[row.subject]
                + disease * common * (truth[row.subject] == "AD")
                + 0.3 * np.random.default_rng([int(row.subject), row.index]).normal(size=60)
                for row in table.itertuples(index=False)
            ]
        )

    def result(self, fit, *, individual=1.0, disease=0.0):
        subjects = people(32, 32)

        def fit_predict(table):
            images = self.pixels(table, subjects, individual=individual, disease=disease)
            training = (table["part"] == "train").to_numpy()
            return fit(images, (table["diagnosis"] == "AD").to_numpy(), training)

        # Not 0, one of the seeds in a hundred at which chance alone is called invalid.
        arms = arms_of(subjects, seed=1)
        predictions = {name: arm.assign(probability=fit_predict(arm)) for name, arm in arms.items()}
        return leakage_test(predictions, truth_of(subjects), seed=0, resamples=200)

    @staticmethod
    def nearest(images, is_ad, training):
        known = images[training]
        distance = (known**2).sum(axis=1) - 2 * images @ known.T
        return is_ad[training][distance.argmin(axis=1)] * 0.8 + 0.1

    def test_learner_that_recognises_subjects_shows_a_large_leak(self):
        found = self.result(self.nearest)
        assert found["verdict"] == "clean"
        assert found["arms"][SLICE_SPLIT_SHUFFLED]["slice"]["accuracy"]["value"] > 0.95
        assert found["gap"]["shuffled_labels"]["value"] > 0.3
        assert found["gap"]["shuffled_labels"]["low"] > 0.1

    def test_learner_that_sees_only_the_disease_is_inconclusive(self):
        def two_means(images, is_ad, training):
            ad, cn = (images[training & (is_ad == label)].mean(axis=0) for label in (True, False))
            nearer = ((images - cn) ** 2).sum(axis=1) > ((images - ad) ** 2).sum(axis=1)
            return nearer * 0.8 + 0.1

        found = self.result(two_means, individual=0.0, disease=2.0)
        assert found["arms"][SUBJECT_SPLIT]["slice"]["accuracy"]["value"] > 0.95
        assert abs(found["gap"]["true_labels"]["value"]) < 0.05
        assert found["verdict"] == "inconclusive"

    def test_learner_that_knows_the_test_labels_is_invalid(self):
        found = self.result(lambda images, is_ad, training: np.where(is_ad, 0.9, 0.1))
        assert found["verdict"] == "invalid"
        assert found["chance"]["p"] < CHANCE_LEVEL
