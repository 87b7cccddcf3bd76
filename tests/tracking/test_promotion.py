"""A version becomes the champion by the rule or by a reasoned decision, and the registry remembers both."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from adpet.errors import TrackingError
from adpet.evaluation.promotion import Evidence, Rule
from adpet.params import Promotion
from adpet.tracking import promotion
from adpet.tracking.promotion import (
    LONGEST_REASON,
    Decision,
    History,
    printable,
    promote,
    read_history,
    rollback,
)
from adpet.tracking.store import current
from adpet.tracking.validation import validation_tag

KNOWN = {"model_name": "adpet", "rule": Rule(**Promotion().model_dump(), seed=1, resamples=300)}
FORGERY = "x]\n2026-01-01 00:00:00  7\r\x1b[2Kanna\u202e"


def champion():
    return read_history("adpet").champion


def rows():
    return read_history("adpet").rows


def outline(history=None):
    """Kind, champion before and after, and end of each decision."""
    found = (history or read_history("adpet")).rows
    return [(row.kind, row.before, row.after, row.end) for row in found]


def not_met(found):
    return [condition.name for condition in found.conditions if not condition.met]


def move_by_hand(version):
    current().client.set_registered_model_alias("adpet", "champion", str(version))


def decision_tags():
    return dict(current().client.get_registered_model("adpet").tags)


@pytest.fixture
def champions(version):
    """Register so many versions, and make each the champion in turn."""

    def champions(count):
        for number in range(count):
            promote(version(f"a{number}"), **KNOWN)

    return champions


class TestRule:
    def test_good_versions_become_the_champion_and_a_worse_one_does_not(self, version, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
        found = promote(version("a1", 2.0), **KNOWN)
        assert (found.before, found.after, found.moved, found.granted) == (None, 1, True, True)
        (row,) = rows()
        assert (row.kind, row.who, row.why, row.forced) == (
            "promotion",
            "anna",
            "every condition is met",
            False,
        )
        assert any(text.startswith("AUC: met: 0.950") for text in row.conditions)
        assert promote(version("b2", 3.0), **KNOWN).moved
        worse = promote(version("d4", 1.0), **KNOWN)
        assert (not_met(worse), worse.moved, champion()) == (["champion"], False, 2)
        again = promote(2, **KNOWN)
        assert (again.before, again.after, again.moved, again.conditions) == (2, 2, False, [])
        assert len(rows()) == 2

    def test_tags_of_the_version_count_as_well_as_its_evidence(self, version):
        number = version(tags={"adpet.leaky": "true", "adpet.leakage": "invalid"})
        assert not_met(promote(number, **KNOWN)) == ["new subjects", "leakage test"]

    def test_validation_of_the_version_on_another_collection_is_required_where_asked_for(self, version):
        asked = {"model_name": "adpet", "rule": replace(KNOWN["rule"], external=0.7), "dry_run": True}
        interval, counts = {"value": 0.9, "low": 0.8, "high": 1.0}, {"subjects_ad": 10, "subjects_cn": 10}
        scored = {"subject": {"auc": interval}, "counts": counts}
        document = {
            "cohort": "clinic",
            "leakage_checks": ["copies of 9 training scans"],
            "evaluation": scored,
        }
        unreadable = {"adpet.external.noted": "AUC 0.9 by hand"}
        found = promote(version("a1", tags=unreadable), **asked)
        assert not_met(found) == ["external"]
        assert found.conditions[-2].text.endswith("run: adpet validate models:/adpet/1 --cohort DIR")
        assert promote(version("b2", tags=unreadable | validation_tag(document)), **asked).granted

    def test_a_dry_run_judges_and_writes_nothing(self, version):
        version()
        before = decision_tags()
        found = promote("challenger", dry_run=True, **KNOWN)
        assert (found.granted, found.moved, champion()) == (True, False, None)
        assert decision_tags() == before

    def test_force_promotes_with_the_reason_and_what_was_missed(self, version):
        found = promote(version(leaky=True), forced="to show the leak" + "x" * 9999, **KNOWN)
        assert (found.moved, found.granted) == (True, False)
        (row,) = rows()
        assert row.forced
        assert row.why.startswith("to show the leak")
        assert len(row.why) == LONGEST_REASON
        assert any(text.startswith("new subjects: NOT MET: the split leaked") for text in row.conditions)

    def test_a_version_of_another_model_is_refused(self, version):
        version(leaky=True)
        own = current().client.get_model_version("adpet", "1")
        current().client.create_registered_model("other")
        current().client.create_model_version("other", own.source, own.run_id, tags=own.tags)
        with pytest.raises(TrackingError, match="models:/other/1: required a version of adpet"):
            promote("models:/other/1", **KNOWN)

    def test_a_changed_model_file_is_not_even_promoted_by_force(self, version, project):
        number = version()
        with next(project.glob("mlartifacts/**/model.keras")).open("ab") as file:
            file.write(b"#")
        with pytest.raises(TrackingError, match="one was changed since"):
            promote(number, forced="it must be", **KNOWN)
        assert champion() is None


class TestEvidence:
    def test_a_champion_without_evidence_has_no_successor_by_the_rule(self, champions, version):
        champions(1)
        current().client.delete_model_version_tag("adpet", "1", "adpet.evidence")
        found = promote(version("b2", 3.0), **KNOWN)
        assert not_met(found) == ["champion"]
        assert found.conditions[-1].text.startswith("models:/adpet/1: required the results")

    @pytest.mark.parametrize("case", ["no tag", "no file", "changed", "another form"])
    def test_a_version_without_valid_evidence_is_promoted_by_force_alone(
        self, version, project, monkeypatch, case
    ):
        if case == "another form":
            monkeypatch.setattr(Evidence, "to_json", lambda _: '{"tested": {}, "known": [], "older": 1}')
        number = version()
        (file,) = project.glob("mlartifacts/**/promotion/*.json")
        if case == "no tag":
            current().client.delete_model_version_tag("adpet", "1", "adpet.evidence")
        elif case == "no file":
            file.unlink()
        elif case == "changed":
            file.write_text('{"tested": {}}')
        found = promote(number, **KNOWN)
        assert [(condition.name, condition.met) for condition in found.conditions] == [("evidence", False)]
        assert found.conditions[0].text.startswith("models:/adpet/1: required")
        assert "dvc repro --force register" in found.conditions[0].text
        assert promote(number, forced="seen", **KNOWN).moved


class TestRollback:
    def test_rollback_returns_to_the_champion_before_and_then_to_the_one_before_that(self, champions):
        champions(3)
        assert rollback(model_name="adpet", reason="odd answers").after == 2
        assert rollback(model_name="adpet").after == champion() == 1
        assert outline()[3:] == [("rollback", 3, 2, "done"), ("rollback", 2, 1, "done")]
        assert rows()[3].why == "odd answers"
        with pytest.raises(TrackingError, match="required a champion before the present one") as refused:
            rollback(model_name="adpet")
        assert "\n" not in str(refused.value)

    def test_rollback_skips_and_names_deleted_versions(self, champions):
        champions(3)
        for gone in (3, 2):
            current().client.delete_model_version("adpet", str(gone))
        found = rollback(model_name="adpet", reason="odd answers")
        assert (found.before, found.after, found.skipped) == (None, 1, (3, 2))
        assert rows()[-1].why == "skipped, since deleted: versions 3, 2; odd answers"
        current().client.delete_model_version("adpet", "1")
        with pytest.raises(TrackingError, match=r"required .*; there was none \(skipped, .* version 1\);"):
            rollback(model_name="adpet")

    def test_a_champion_whose_files_have_changed_does_not_return(self, champions, version, project):
        champions(1)
        file = next(project.glob("mlartifacts/**/model.keras"))
        promote(version("b2"), **KNOWN)
        file.write_bytes(b"other")
        with pytest.raises(TrackingError, match="models:/adpet/1: required its files as they were"):
            rollback(model_name="adpet")
        assert champion() == 2


class TestHistory:
    """What the written decisions and the alias say together."""

    def history(self, *moves, champion=None):
        written = [
            Decision(kind=kind, before=before, after=after, number=number, id="a", end=end)
            for number, (kind, before, after, end) in enumerate(moves, start=1)
        ]
        return History(tuple(written), champion)

    def test_moves_by_hand_follow_from_what_the_next_decision_found(self):
        found = self.history(("promotion", 2, 3, "done"), ("promotion", 3, 4, "overtaken"), champion=5)
        assert outline(found) == [
            ("moved by hand", None, 2, "done"),
            ("promotion", 2, 3, "done"),
            ("promotion", 3, 4, "overtaken"),
            ("moved by hand", 3, 5, "done"),
        ]
        assert found.champions == [None, 2, 3, 5]

    def test_rollback_takes_later_champions_off(self):
        moves = [("promotion", None, 1, "done"), ("promotion", 1, 2, "done"), ("rollback", 2, 1, "done")]
        assert self.history(*moves, champion=1).champions == [None, 1]
        after = self.history(*moves, ("promotion", 1, 3, "done"), champion=3)
        assert after.champions == [None, 1, 3]

    def test_a_gap_in_the_numbers_is_a_removed_decision(self, champions):
        champions(3)
        assert read_history("adpet").removed == []
        for key in [key for key in decision_tags() if ".000002." in key]:
            current().client.delete_registered_model_tag("adpet", key)
        assert read_history("adpet").removed == [2]

    def test_an_alias_that_was_moved_in_the_ui_is_what_the_next_challenger_is_compared_with(self, version):
        promote(version("a1", 1.0), **KNOWN)
        version("b2", 3.0)
        move_by_hand(2)
        assert outline()[1:] == [("moved by hand", 1, 2, "done")]
        found = promote(version("c3", 1.0), **KNOWN)
        assert (found.before, not_met(found)) == (2, ["champion"])
        assert promote(3, forced="demo", **KNOWN).moved
        assert outline()[1:] == [("moved by hand", 1, 2, "done"), ("promotion", 2, 3, "done")]

    def test_a_user_who_may_only_read_sees_the_history_and_decides_nothing(self, champions, monkeypatch):
        def forbidden(*_):
            raise MlflowException("Permission denied", PERMISSION_DENIED)

        champions(2)
        monkeypatch.setattr(current().client, "set_registered_model_tag", forbidden)
        assert len(rows()) == 2
        with pytest.raises(TrackingError, match=r"the server does not let user .* do this"):
            rollback(model_name="adpet")


class TestSimultaneous:
    @pytest.fixture(autouse=True)
    def two_more(self, champions, version):
        """Version 1 is the champion; 2 and 3 could be."""
        champions(1)
        for lineage in ("b2", "c3"):
            version(lineage)

    def test_one_of_two_promotions_wins_and_both_are_in_the_history(self, monkeypatch):
        both, judge = Barrier(2), promotion.judge

        def judge_together(*arguments):
            found = judge(*arguments)
            both.wait(60)
            return found

        monkeypatch.setattr(promotion, "judge", judge_together)
        with ThreadPoolExecutor(2) as pool:
            outcomes = [pool.submit(promote, number, **KNOWN) for number in (2, 3)]
        (lost,) = [outcome.exception() for outcome in outcomes if outcome.exception()]
        (won,) = [outcome.result() for outcome in outcomes if not outcome.exception()]
        assert "required a champion that stays while this is decided; received version" in str(lost)
        assert "\n" not in str(lost)
        assert champion() == won.after
        assert sorted((row.after == won.after, row.end) for row in rows()[1:]) == [
            (False, "overtaken"),
            (True, "done"),
        ]

    @pytest.mark.parametrize("other", [2, 3])
    def test_a_champion_that_was_set_while_a_decision_was_written_stays(self, monkeypatch, other):
        write = promotion._set_tag
        monkeypatch.setattr(
            promotion, "_set_tag", lambda *arguments: [write(*arguments), move_by_hand(other)]
        )
        with pytest.raises(
            TrackingError, match=rf"received version {other}, set meanwhile; see: adpet history"
        ):
            promote(2, **KNOWN)
        assert outline()[1:] == [("promotion", 1, 2, "overtaken"), ("moved by hand", 1, other, "done")]

    def test_an_alias_that_is_another_when_read_back_is_overtaken(self, monkeypatch):
        monkeypatch.setattr(current().client, "set_registered_model_alias", lambda *_: None)
        with pytest.raises(TrackingError, match="received version 1, set meanwhile"):
            promote(2, **KNOWN)
        assert outline()[1:] == [("promotion", 1, 2, "overtaken")]

    @pytest.mark.parametrize("moved", [False, True])
    def test_a_killed_promotion_stays_unfinished_and_blocks_none(self, monkeypatch, moved):
        def killed(*arguments):
            if moved:
                set_alias(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(promotion, "SETTLE_S", 0.1)
        set_alias = current().client.set_registered_model_alias
        with monkeypatch.context() as patch:
            patch.setattr(current().client, "set_registered_model_alias", killed)
            with pytest.raises(KeyboardInterrupt):
                promote(2, **KNOWN)
        assert outline()[1] == ("promotion", 1, 2, "")
        before = 2 if moved else 1
        assert promote(3, **KNOWN).before == before
        assert rollback(model_name="adpet").after == before


class TestTags:
    def test_forged_text_is_one_printable_line_when_written_and_when_read(self, version, monkeypatch):
        assert printable(FORGERY) == "x] 2026-01-01 00:00:00 7 [2Kanna"
        assert printable("Größe 3 µm, 日本") == "Größe 3 µm, 日本"
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", FORGERY)
        promote(version(), forced=FORGERY, **KNOWN)
        (key,) = [key for key in decision_tags() if not key.endswith("done")]
        document = json.loads(decision_tags()[key])
        assert document["who"] == document["why"] == printable(FORGERY)
        forged = json.dumps(document | {"why": FORGERY, "at": FORGERY, "conditions": [FORGERY]})
        current().client.set_registered_model_tag("adpet", key, forged)
        (row,) = rows()
        assert {row.why, row.at, *row.conditions} == {printable(FORGERY)}

    def test_a_tag_of_another_form_is_no_decision_and_a_changed_one_is_refused_by_name(self, project):
        client = current().client
        client.create_registered_model("adpet")
        for key in ("note", "000002", "000002.anna", f"000002.{'a' * 12}.note", f"two.{'a' * 12}"):
            client.set_registered_model_tag("adpet", f"adpet.decision.{key}", "to be discussed")
        assert rows() == []
        client.set_registered_model_tag("adpet", f"adpet.decision.000001.{'a' * 12}", "[1]")
        with pytest.raises(
            TrackingError, match=r"tag adpet.decision.000001.a+ .* correct it in the MLflow UI"
        ):
            rows()
