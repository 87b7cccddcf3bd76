"""Promotion: six conditions, each with its numbers."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import AUC, LEAD, SLOPE, answers, evidence

from adpet.contracts import Differences, Estimate, EvaluationDocument, LeakageTest, SubjectScores, TrainingRun
from adpet.errors import InputError
from adpet.evaluation import promotion
from adpet.evaluation.promotion import Evidence, Rule, common_subjects, conditions, evidence_digest
from adpet.params import Promotion

RULE = Rule(**Promotion().model_dump(), seed=1, resamples=500)


def missed(challenger, champion=None, rule=RULE):
    return {item.name: item.text for item in conditions(challenger, champion, rule) if not item.met}


class TestWithoutAChampion:
    def test_a_good_version_meets_every_condition(self):
        found = conditions(evidence(), None, RULE)
        assert all(condition.met for condition in found)
        assert [condition.name for condition in found] == [
            "new subjects", "leakage test", "AUC", "calibration", "baseline", "champion"
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("changes", "name", "text"),
        [
            ({"leaky": True}, "new subjects", "the split leaked subjects"),
            ({"known": frozenset({f"{0:016x}"})}, "new subjects", "trained or tuned on 1 of them"),
            ({"table": answers(subjects=18)}, "new subjects", "required: 10 or more of each diagnosis"),
            ({"leakage": "invalid"}, "leakage test", "invalid: with shuffled labels"),
            ({"leakage": "inconclusive"}, "leakage test", "inconclusive: "),
            ({"auc": AUC | {"low": 0.8}}, "AUC", "0.950 .95 % interval 0.800 to 0.980.; required: lower end over 0.8"),
            ({"slope": SLOPE | {"low": 1.3}}, "calibration", "an interval that overlaps 0.8 to 1.25"),
            ({"slope": SLOPE | {"low": 0.5, "high": 0.7}}, "calibration", "slope 1.400 .* 0.500 to 0.700"),
            ({"lead": LEAD | {"low": -0.05}}, "baseline", r"region: .*required: lower end over -0.05$"),
            ({"baseline": None, "lead": None}, "baseline", "none of atlas, regions was scored"),
        ],
    )  # fmt: skip
    def test_single_unmet_condition_says_why(self, changes, name, text):
        found = missed(evidence(**changes))
        assert list(found) == [name]
        assert re.search(text, found[name])

    def test_margin_of_zero_asks_for_a_win_over_the_baseline(self):
        found = missed(evidence(), rule=replace(RULE, baseline_margin=0.0))
        assert found["baseline"].endswith("required: lower end over 0, a win")


class TestAgainstAChampion:
    def test_better_or_hardly_worse_challenger_passes(self):
        champion = evidence(answers(2.0))
        assert not missed(evidence(answers(3.0)), champion)
        assert not missed(evidence(answers(2.0, noise=0.1)), champion)

    def test_worse_challenger_fails(self):
        found = missed(evidence(answers(2.0, noise=2.5)), evidence(answers(2.0)))
        assert list(found) == ["champion"]
        assert "AUC difference -0." in found["champion"]
        assert "on 80 subjects (40 AD, 40 CN) that both were tested on; required: " in found["champion"]

    def test_challenger_with_the_same_ranks_and_a_worse_brier_score_fails(self):
        timid = answers().assign(probability=lambda table: 0.45 + 0.1 * table["probability"])
        found = missed(evidence(timid), evidence())
        assert "AUC difference +0.000 (95 % interval +0.000 to +0.000)" in found["champion"]
        assert found["champion"].endswith("required: lower end not over 0 (not clearly worse)")

    def test_subject_with_changed_diagnosis_is_excluded(self):
        changed = answers()
        changed.loc[0, "diagnosis"] = "CN"
        found = common_subjects(evidence(changed), evidence())
        assert (len(found.challenger), found.known, found.relabelled) == (79, 0, 1)

    def test_many_changed_diagnoses_mean_other_people(self):
        other = answers()
        other.loc[:8, "diagnosis"] = other["diagnosis"].map({"AD": "CN", "CN": "AD"})
        found = missed(evidence(other), evidence())
        assert list(found) == ["champion"]
        assert "9 excluded since their diagnosis differs; too many: " in found["champion"]

    @pytest.mark.parametrize("separation", [2.0, 40.0], ids=["some errors", "none"])
    def test_identical_predictions_pass(self, separation):
        table = answers(separation, subjects=24)
        conditions_met = conditions(evidence(table), evidence(table.copy()), RULE)
        assert conditions_met[-1].met
        assert "the same predictions as the champion's on 24 subjects" in conditions_met[-1].text

    @pytest.mark.parametrize("first", [62, 500])
    def test_too_few_common_subjects_fail(self, first):
        found = missed(evidence(answers()), evidence(answers(first=first)))
        assert list(found) == ["champion"]
        assert found["champion"].endswith("required: 10 or more of each diagnosis")

    @given(st.lists(st.integers(0, 79), unique=True), st.lists(st.integers(0, 79), unique=True))
    def test_subjects_known_to_either_version_are_excluded(self, first, second):
        known = [frozenset(f"{number:016x}" for number in numbers) for numbers in (first, second)]
        found = common_subjects(evidence(known=known[0]), evidence(known=known[1]))
        kept = set(found.challenger["subject"])
        assert not kept & (known[0] | known[1])
        assert len(kept) + found.known == 80


class TestOtherCollections:
    ASKED = replace(RULE, external=0.7)
    GOOD = promotion.Validation(auc=Estimate(**AUC), ad=12, cn=20, leakage_checks=["training subjects by id"])
    WORSE = GOOD.model_copy(update={"auc": Estimate(value=0.8, low=0.7, high=0.9)})
    SMALL, UNCHECKED = GOOD.model_copy(update={"ad": 9}), GOOD.model_copy(update={"leakage_checks": []})

    def judged(self, **validations):
        (found,) = promotion.external_conditions(validations, self.ASKED, uri="models:/adpet/3")
        return found.met, found.text

    def test_nothing_is_asked_by_default(self):
        assert promotion.external_conditions({"clinic": self.GOOD}, RULE, uri="models:/adpet/3") == []

    def test_without_a_validation_it_says_how_to_make_one(self):
        met, text = self.judged()
        assert not met
        assert text.startswith("not validated on another collection; required: lower end over 0.7")
        assert text.endswith("run: adpet validate models:/adpet/3 --cohort DIR")

    def test_each_collection_counts_so_that_none_is_chosen_for_its_result(self):
        met, text = self.judged(clinic=self.GOOD)
        assert met
        assert "0.950 (95 % interval 0.900 to 0.980) on 32 subjects (12 AD, 20 CN) of clinic" in text
        assert not self.judged(clinic=self.GOOD, other=self.WORSE)[0]

    @pytest.mark.parametrize(
        ("left_out", "why"),
        [(SMALL, "10 or more of each diagnosis"), (UNCHECKED, "nothing of the training was looked for")],
    )
    def test_validation_that_proves_nothing_does_not_count(self, left_out, why):
        met, text = self.judged(clinic=left_out)
        assert not met
        assert re.search(f"of clinic does not count.*{why}.*run: adpet validate", text)
        assert self.judged(clinic=left_out, other=self.GOOD)[0]


class TestEvidence:
    def test_evidence_round_trips_with_the_same_digest(self):
        one = evidence()
        text = one.to_json()
        other = Evidence.from_json(text)
        assert other.to_json() == text
        assert evidence_digest(text) == evidence_digest(evidence().to_json())
        assert not missed(other, one)

    @pytest.mark.parametrize(
        ("baselines", "chosen"),
        [(["voxels"], None), (["voxels", "regions"], "regions"), (["regions", "atlas"], "atlas")],
    )
    def test_results_of_a_run_keep_hashed_subjects_and_the_neutral_baseline(self, baselines, chosen):
        table = answers().assign(called="AD", session="20090811", age=75).sample(frac=1, random_state=1)
        estimate = Estimate(**AUC)
        found = Evidence.of(
            table,
            trained=TrainingRun.model_construct(trained_on=["b", "a"], validated_on=["a"], leaky=False),
            leakage=LeakageTest.model_construct(verdict="clean", reason="so"),
            metrics=EvaluationDocument.model_construct(
                subject=SubjectScores.model_construct(auc=estimate, calibration_slope=estimate),
                differences=dict.fromkeys(baselines, Differences.model_construct(auc=estimate)),
            ),
        )
        document = json.loads(found.to_json())
        assert set(document["tested"]) == {"subject", "diagnosis", "probability"}
        assert document["tested"]["subject"] == sorted(table["subject"])
        assert (document["known"], document["auc"], document["slope"]) == (["a", "b"], AUC, AUC)
        assert (document["baseline"], document["lead"]) == (chosen, chosen and AUC)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"tested": {}, "known": 3}'])
    def test_malformed_evidence_is_refused_in_one_line(self, text):
        with pytest.raises(
            InputError, match="required the evidence as this version of adpet writes"
        ) as refused:
            Evidence.from_json(text)
        assert "\n" not in str(refused.value)

    def test_evidence_of_an_older_form_says_how_to_make_it_again(self):
        older = evidence().to_json().replace('"leakage', '"audit')
        with pytest.raises(InputError, match=r"received: .*'audit'; register it again with: dvc repro"):
            Evidence.from_json(older)
