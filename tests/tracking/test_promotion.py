"""A version becomes the champion by the rule or by a reasoned decision, and the registry remembers both."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from adpet.errors import TrackingError
from adpet.evaluation.promotion import Evidence, Rule
from adpet.tracking import promotion
from adpet.tracking.promotion import LONGEST_REASON, printable, promote, read_history, rollback
from adpet.tracking.store import current

RULE = Rule(
    min_auc_lower=0.8, baseline_margin=0.0, champion_margin=0.05, min_subjects=10, seed=1, resamples=300
)
KNOWN = {"model_name": "adpet", "rule": RULE}
FORGERY = "x]\n2026-01-01 00:00:00  7\r\x1b[2Kanna\u202e"


def champion():
    return read_history("adpet").champion


def rows():
    return read_history("adpet").rows


def history():
    """Kind, champion before and after, and end of each decision."""
    return [(row.kind, row.before, row.after, row.end) for row in rows()]


def back(reason=""):
    """Roll back; return the champion before and after."""
    found = rollback(model_name="adpet", reason=reason)
    return found.before, found.after


def move_by_hand(version):
    current().client.set_registered_model_alias("adpet", "champion", str(version))


def decision_tags():
    return dict(current().client.get_registered_model("adpet").tags)


def set_tag(key, value):
    current().client.set_registered_model_tag("adpet", key, value)


class TestTheRule:
    def test_the_first_good_version_becomes_the_champion(self, version):
        found = promote(version(), **KNOWN)
        assert (found.before, found.after, found.moved, found.granted) == (None, 1, True, True)
        assert champion() == 1
        (row,) = rows()
        assert (row.kind, row.after, row.why, row.forced) == (
            "promotion", 1, "every condition is met", False
        )  # fmt: skip
        assert any(text.startswith("AUC: met: 0.930") for text in row.conditions)

    def test_a_better_and_an_equal_challenger_follow_and_a_worse_one_does_not(self, version):
        promote(version("a1", 2.0), **KNOWN)
        assert promote(version("b2", 3.0), **KNOWN).moved
        assert promote(version("c3", 3.0), **KNOWN).moved
        worse = promote(version("d4", 1.0), **KNOWN)
        assert [condition.name for condition in worse.conditions if not condition.met] == ["champion"]
        assert (worse.moved, champion()) == (False, 3)
        assert len(history()) == 3

    def test_a_leaky_challenger_is_refused_however_good_it_is(self, version):
        found = promote(version("a1", 5.0, leaky=True), **KNOWN)
        assert [condition.name for condition in found.conditions if not condition.met] == ["new subjects"]
        assert champion() is None

    def test_a_mark_on_the_version_counts_beside_its_evidence(self, version):
        number = version("a1", tags={"adpet.leaky": "true", "adpet.audit": "invalid"})
        found = promote(number, **KNOWN)
        assert [condition.name for condition in found.conditions if not condition.met] == [
            "new subjects",
            "leakage audit",
        ]

    def test_a_dry_run_says_the_same_and_writes_nothing(self, version):
        version()
        before = current().client.get_registered_model("adpet").tags
        found = promote("challenger", dry_run=True, **KNOWN)
        assert (found.granted, found.moved, champion()) == (True, False, None)
        assert current().client.get_registered_model("adpet").tags == before

    def test_the_champion_itself_is_not_promoted_again(self, version):
        promote(version(), **KNOWN)
        found = promote(1, **KNOWN)
        assert (found.before, found.after, found.moved, found.conditions) == (1, 1, False, [])
        assert len(history()) == 1

    def test_by_force_it_is_promoted_with_the_reason_and_what_was_missed(self, version):
        found = promote(version("a1", leaky=True), forced="to show the leak" + "x" * 9999, **KNOWN)
        assert (found.moved, found.granted) == (True, False)
        (row,) = rows()
        assert row.forced
        assert row.why.startswith("to show the leak")
        assert len(row.why) == LONGEST_REASON
        assert any(text.startswith("new subjects: NOT MET: the split leaked") for text in row.conditions)

    def test_a_version_of_another_model_lends_this_one_nothing(self, version):
        version("a1", leaky=True)
        own = current().client.get_model_version("adpet", "1")
        current().client.create_registered_model("other")
        current().client.create_model_version("other", own.source, own.run_id, tags=own.tags)
        with pytest.raises(TrackingError, match="models:/other/1: required a version of adpet"):
            promote("models:/other/1", **KNOWN)
        assert champion() is None

    def test_who_decided_is_named(self, version, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
        promote(version(), **KNOWN)
        assert rows()[0].who == "anna"


class TestEvidence:
    def test_a_version_without_it_is_refused_but_may_be_forced(self, version):
        version()
        current().client.delete_model_version_tag("adpet", "1", "adpet.evidence")
        found = promote(1, **KNOWN)
        assert [condition.name for condition in found.conditions] == ["evidence"]
        assert "register it again with: dvc repro --force register" in found.conditions[0].text
        assert promote(1, forced="seen", **KNOWN).moved

    def test_a_champion_without_it_lets_nobody_follow_by_the_rule(self, version):
        promote(version(), **KNOWN)
        current().client.delete_model_version_tag("adpet", "1", "adpet.evidence")
        found = promote(version("b2", 3.0), **KNOWN)
        assert [condition.name for condition in found.conditions if not condition.met] == ["champion"]
        assert found.conditions[-1].text.startswith("models:/adpet/1: required the results")

    @pytest.mark.parametrize("content", [None, '{"tested": {}}'])
    def test_a_file_that_was_removed_or_changed_decides_nothing(self, version, project, content):
        number = version()
        (file,) = project.glob("mlartifacts/**/promotion/*.json")
        if content is None:
            file.unlink()
        else:
            file.write_text(content)
        found = promote(number, **KNOWN)
        assert [(condition.name, condition.met) for condition in found.conditions] == [("evidence", False)]

    def test_evidence_of_another_form_decides_nothing_and_names_the_version(self, version, monkeypatch):
        text = '{"tested": {}, "known": [], "of an older adpet": 1}'
        monkeypatch.setattr(Evidence, "to_json", lambda _: text)
        found = promote(version(), **KNOWN)
        assert [(condition.name, condition.met) for condition in found.conditions] == [("evidence", False)]
        text = found.conditions[0].text
        assert text.startswith("models:/adpet/1: required a version's evidence as JSON; received: ")
        assert text.count("register it anew") == 1
        assert promote(1, forced="seen", **KNOWN).moved

    def test_a_changed_model_file_is_not_even_promoted_by_force(self, version, project):
        number = version()
        with next(project.glob("mlartifacts/**/model.keras")).open("ab") as file:
            file.write(b"#")
        with pytest.raises(TrackingError, match="one was changed since"):
            promote(number, forced="it must be", **KNOWN)
        assert champion() is None


class TestRollback:
    def test_it_returns_to_the_champion_before_and_again_to_the_one_before_that(self, version):
        for lineage in ("a1", "b2", "c3"):
            promote(version(lineage), **KNOWN)
        assert back("odd answers") == (3, 2)
        assert back() == (2, 1)
        assert champion() == 1
        assert history()[3:] == [("rollback", 3, 2, "done"), ("rollback", 2, 1, "done")]
        assert rows()[3].why == "odd answers"
        with pytest.raises(TrackingError, match="required a champion before the present one") as refused:
            rollback(model_name="adpet")
        assert "\n" not in str(refused.value)

    def test_it_does_not_swing_back_where_the_alias_was_taken_away_in_between(self, version):
        for lineage in ("a1", "b2"):
            promote(version(lineage), **KNOWN)
        current().client.delete_registered_model_alias("adpet", "champion")
        promote(2, **KNOWN)
        assert back() == (2, 1)
        with pytest.raises(TrackingError, match="required a champion before the present one"):
            rollback(model_name="adpet")

    def test_after_a_promotion_it_returns_to_what_that_one_replaced(self, version):
        for lineage in ("a1", "b2"):
            promote(version(lineage), **KNOWN)
        rollback(model_name="adpet")
        promote(version("c3"), **KNOWN)
        assert back() == (3, 1)

    def test_a_version_that_was_deleted_is_skipped_and_told(self, version):
        for lineage in ("a1", "b2", "c3"):
            promote(version(lineage), **KNOWN)
        current().client.delete_model_version("adpet", "2")
        found = rollback(model_name="adpet", reason="odd answers")
        assert (found.before, found.after, found.skipped) == (3, 1, (2,))
        assert rows()[-1].why == "skipped, since deleted: version 2; odd answers"
        with pytest.raises(
            TrackingError, match="required a champion before the present one; there was none;"
        ):
            rollback(model_name="adpet")

    def test_it_returns_from_a_champion_that_was_deleted_and_says_where_none_is_left(self, version):
        for lineage in ("a1", "b2"):
            promote(version(lineage), **KNOWN)
        current().client.delete_model_version("adpet", "2")
        found = rollback(model_name="adpet")
        assert (found.before, found.after, found.skipped) == (None, 1, (2,))
        current().client.delete_model_version("adpet", "1")
        with pytest.raises(TrackingError, match=r"required .*; there was none \(skipped, .* version 1\);"):
            rollback(model_name="adpet")

    def test_a_champion_whose_files_have_changed_does_not_return(self, version, project):
        promote(version("a1"), **KNOWN)
        file = next(project.glob("mlartifacts/**/model.keras"))
        promote(version("b2"), **KNOWN)
        file.write_bytes(b"other")
        with pytest.raises(TrackingError, match="models:/adpet/1: required its files as they were"):
            rollback(model_name="adpet")
        assert champion() == 2


class TestByHand:
    def test_an_alias_that_was_moved_in_the_ui_is_in_the_history(self, version):
        promote(version("a1"), **KNOWN)
        version("b2")
        move_by_hand(2)
        expected = [("promotion", None, 1, "done"), ("moved by hand", 1, 2, "done")]
        assert history() == expected
        promote(version("c3"), **KNOWN)
        assert history() == [*expected, ("promotion", 2, 3, "done")]

    def test_a_user_who_may_only_read_sees_the_history_and_decides_nothing(self, version, monkeypatch):
        def forbidden(*_):
            raise MlflowException("Permission denied", PERMISSION_DENIED)

        promote(version("a1"), **KNOWN)
        version("b2")
        move_by_hand(2)
        monkeypatch.setattr(current().client, "set_registered_model_tag", forbidden)
        assert [row.after for row in rows()] == [1, 2]
        with pytest.raises(TrackingError, match=r"the server does not let user .* do this"):
            rollback(model_name="adpet")

    def test_what_is_promoted_next_is_compared_with_the_one_that_was_put_there(self, version):
        promote(version("a1", 1.0), **KNOWN)
        version("b2", 3.0)
        move_by_hand(2)
        found = promote(version("c3", 1.0), **KNOWN)
        assert (found.before, found.moved) == (2, False)
        assert history()[-1] == ("moved by hand", 1, 2, "done")

    def test_an_alias_that_was_taken_away_is_noticed_and_rolled_back(self, version):
        promote(version("a1"), **KNOWN)
        current().client.delete_registered_model_alias("adpet", "champion")
        assert back() == (None, 1)
        assert history()[1:] == [("moved by hand", 1, None, "done"), ("rollback", None, 1, "done")]

    def test_a_champion_from_before_the_history_is_shown(self, version):
        version("a1")
        move_by_hand(1)
        assert history() == [("moved by hand", None, 1, "done")]


class TestSimultaneous:
    def test_one_of_two_promotions_wins_and_both_are_in_the_history(self, version, monkeypatch):
        for lineage in ("a1", "b2", "c3"):
            version(lineage)
        promote(1, **KNOWN)
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
        assert won.moved
        assert champion() == won.after
        assert sorted(row.end for row in rows()) == ["done", "done", "overtaken"]
        assert {row.after for row in rows()} == {1, 2, 3}
        assert back() == (won.after, 1)

    def test_a_champion_that_moves_after_the_decision_is_written_stays(self, version, monkeypatch):
        for lineage in ("a1", "b2", "c3"):
            version(lineage)
        promote(1, **KNOWN)
        write = promotion._set_tag

        def write_and_move(*arguments):
            write(*arguments)
            move_by_hand(3)

        monkeypatch.setattr(promotion, "_set_tag", write_and_move)
        with pytest.raises(TrackingError, match="received version 3, set meanwhile; see: adpet history"):
            promote(2, **KNOWN)
        assert history()[1:] == [("promotion", 1, 2, "overtaken"), ("moved by hand", 1, 3, "done")]

    def test_an_alias_that_is_another_when_read_back_is_overtaken(self, version, monkeypatch):
        for lineage in ("a1", "b2"):
            version(lineage)
        promote(1, **KNOWN)
        monkeypatch.setattr(current().client, "set_registered_model_alias", lambda *_: None)
        with pytest.raises(TrackingError, match="received version 1, set meanwhile"):
            promote(2, **KNOWN)
        assert history() == [("promotion", None, 1, "done"), ("promotion", 1, 2, "overtaken")]

    @pytest.mark.parametrize("moved", [False, True])
    def test_a_killed_promotion_stays_unfinished_and_blocks_none(self, version, monkeypatch, moved):
        def killed(name, alias, number):
            if moved:
                set_alias(name, alias, number)
            raise KeyboardInterrupt

        monkeypatch.setattr(promotion, "SETTLE_S", 0.1)
        for lineage in ("a1", "b2"):
            version(lineage)
        promote(1, **KNOWN)
        set_alias = current().client.set_registered_model_alias
        with monkeypatch.context() as patch:
            patch.setattr(current().client, "set_registered_model_alias", killed)
            with pytest.raises(KeyboardInterrupt):
                promote(2, **KNOWN)
        assert champion() == (2 if moved else 1)
        assert history()[1] == ("promotion", 1, 2, "")
        assert back() == (2, 1) if moved else promote(2, **KNOWN).moved


class TestTags:
    def test_text_is_one_line_of_printable_characters(self):
        assert printable(FORGERY) == "x] 2026-01-01 00:00:00 7 [2Kanna"
        assert printable("Größe 3 µm, 日本") == "Größe 3 µm, 日本"

    def test_forged_text_is_printable_when_written_and_when_read(self, version, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", FORGERY)
        promote(version(), forced=FORGERY, **KNOWN)
        (key,) = [key for key in decision_tags() if not key.endswith("done")]
        document = json.loads(decision_tags()[key])
        assert document["who"] == document["why"] == printable(FORGERY)
        set_tag(key, json.dumps(document | {"why": FORGERY, "at": FORGERY, "conditions": [FORGERY]}))
        (row,) = rows()
        assert {row.why, row.at, *row.conditions} == {printable(FORGERY)}

    def test_a_tag_of_another_form_is_no_decision(self, version):
        promote(version(), **KNOWN)
        for key in ("note", "000002", "000002.anna", f"000002.{'a' * 12}.note", f"two.{'a' * 12}"):
            set_tag(f"adpet.decision.{key}", "to be discussed")
        assert [row.number for row in rows()] == [1]

    def test_a_decision_that_was_changed_by_hand_is_refused_by_name(self, project):
        current().client.create_registered_model("adpet")
        set_tag(f"adpet.decision.000001.{'a' * 12}", "[1]")
        with pytest.raises(
            TrackingError, match=r"tag adpet.decision.000001.a+ .* correct it in the MLflow UI"
        ):
            rows()

    def test_a_gap_in_the_numbers_is_a_removed_decision(self, version):
        for lineage in ("a1", "b2", "c3"):
            promote(version(lineage), **KNOWN)
        assert read_history("adpet").removed == []
        for key in [key for key in decision_tags() if ".000002." in key]:
            current().client.delete_registered_model_tag("adpet", key)
        assert read_history("adpet").removed == [2]
