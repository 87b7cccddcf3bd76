"""A version becomes the champion by the rule or by a reasoned decision, and the registry remembers which."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from adpet.errors import TrackingError
from adpet.evaluation.promotion import Evidence, Rule
from adpet.tracking import promotion, turns
from adpet.tracking.decisions import LONGEST_REASON, read_book
from adpet.tracking.promotion import history, promote, rollback
from adpet.tracking.registry import version_of
from adpet.tracking.store import ForbiddenError, current

RULE = Rule(
    min_auc_lower=0.8, baseline_margin=0.0, champion_margin=0.05, min_subjects=10, seed=1, resamples=300
)
KNOWN = {"model_name": "adpet", "rule": RULE}


def champion():
    return read_book("adpet").champion


def entries():
    """The history without looks that found nothing."""
    return [one for one in history(model_name="adpet").decisions if not one.is_idle_look]


def told():
    """The history: kind, champion before and after, and how it ended."""
    return [(one.kind, one.before, one.after, one.end) for one in entries()]


def back(reason=""):
    """Roll back; return the champion before and after."""
    found = rollback(model_name="adpet", reason=reason)
    return found.before, found.after


def move_by_hand(version):
    current().client.set_registered_model_alias("adpet", "champion", str(version))


def process(project, code):
    """Start a process that takes decisions on the project's store."""
    head = (
        "import os, signal, sys; from pathlib import Path\n"
        "from adpet.evaluation.promotion import Rule\n"
        "from adpet.tracking import promotion\n"
        "from adpet.tracking.store import connect, current\n"
        f"connect(Path({str(project)!r})); rule = {RULE!r}\n"
    )
    package = str(Path(promotion.__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", head + code],
        env={**os.environ, "PYTHONPATH": package},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class TestTheRule:
    def test_the_first_good_version_becomes_the_champion(self, version):
        found = promote(version(), **KNOWN)
        assert (found.before, found.after, found.moved, found.granted) == (None, 1, True, True)
        assert champion() == 1
        (entry,) = entries()
        assert (entry.kind, entry.after, entry.why, entry.forced) == (
            "promotion", 1, "every condition is met", False
        )  # fmt: skip
        assert any(text.startswith("AUC: met: 0.930") for text in entry.conditions)

    def test_a_better_and_an_equal_challenger_follow_and_a_worse_one_does_not(self, version):
        promote(version("a1", 2.0), **KNOWN)
        assert promote(version("b2", 3.0), **KNOWN).moved
        assert promote(version("c3", 3.0), **KNOWN).moved
        worse = promote(version("d4", 1.0), **KNOWN)
        assert [one.name for one in worse.conditions if not one.met] == ["champion"]
        assert (worse.moved, champion()) == (False, 3)
        assert len(told()) == 3

    def test_a_leaky_challenger_is_refused_however_good_it_is(self, version):
        found = promote(version("a1", 5.0, leaky=True), **KNOWN)
        assert [one.name for one in found.conditions if not one.met] == ["new subjects"]
        assert champion() is None

    def test_a_mark_on_the_version_counts_beside_its_evidence(self, version):
        number = version("a1", tags={"adpet.leaky": "true", "adpet.audit": "invalid"})
        found = promote(number, **KNOWN)
        assert [one.name for one in found.conditions if not one.met] == ["new subjects", "leakage test"]

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
        assert len(told()) == 1

    def test_by_force_it_is_promoted_with_the_reason_and_what_was_missed(self, version):
        found = promote(version("a1", leaky=True), forced="to show the leak" + "x" * 9999, **KNOWN)
        assert (found.moved, found.granted) == (True, False)
        (entry,) = entries()
        assert entry.forced
        assert entry.why.startswith("to show the leak")
        assert len(entry.why) == LONGEST_REASON
        assert any(text.startswith("new subjects: NOT MET: the split leaked") for text in entry.conditions)

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
        assert entries()[0].who == "anna"


class TestEvidence:
    def test_a_version_without_it_is_refused_but_may_be_forced(self, version):
        version()
        current().client.delete_model_version_tag("adpet", "1", "adpet.evidence")
        found = promote(1, **KNOWN)
        assert [one.name for one in found.conditions] == ["evidence"]
        assert "register it anew with: dvc repro --force register" in found.conditions[0].text
        assert promote(1, forced="seen", **KNOWN).moved

    def test_a_champion_without_it_lets_nobody_follow_by_the_rule(self, version):
        promote(version(), **KNOWN)
        current().client.delete_model_version_tag("adpet", "1", "adpet.evidence")
        found = promote(version("b2", 3.0), **KNOWN)
        assert [one.name for one in found.conditions if not one.met] == ["champion"]
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
        assert [(one.name, one.met) for one in found.conditions] == [("evidence", False)]

    def test_evidence_of_another_form_decides_nothing_and_names_the_version(self, version, monkeypatch):
        text = '{"tested": {}, "known": [], "of an older adpet": 1}'
        monkeypatch.setattr(Evidence, "to_json", lambda _: text)
        found = promote(version(), **KNOWN)
        assert [(one.name, one.met) for one in found.conditions] == [("evidence", False)]
        told = found.conditions[0].text
        assert told.startswith("models:/adpet/1: required a version's evidence as JSON; received: ")
        assert told.count("dvc repro --force register") == 1
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
        assert told()[3:] == [("rollback", 3, 2, "done"), ("rollback", 2, 1, "done")]
        assert entries()[3].why == "odd answers"
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
        assert entries()[-1].why == "skipped, since deleted: version 2; odd answers"
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
    def test_an_alias_that_was_moved_in_the_ui_is_noticed_once(self, version, monkeypatch):
        promote(version("a1"), **KNOWN)
        version("b2")
        move_by_hand(2)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
        expected = [("promotion", None, 1, "done"), ("moved by hand", 1, 2, "done")]
        assert told() == expected
        assert told() == expected
        assert entries()[-1].who == "anna"

    def test_whoever_may_only_read_sees_the_history_as_it_is(self, version, monkeypatch):
        def forbidden(*_):
            raise MlflowException("Permission denied", PERMISSION_DENIED)

        promote(version("a1"), **KNOWN)
        version("b2")
        move_by_hand(2)
        monkeypatch.setattr(current().client, "set_registered_model_tag", forbidden)
        book = history(model_name="adpet")
        assert [one.after for one in book.decisions] == [1]
        assert (book.recorded, book.champion) == (1, 2)
        with pytest.raises(ForbiddenError, match=r"the server does not let user .* do this"):
            rollback(model_name="adpet")

    def test_what_is_promoted_next_is_compared_with_the_one_that_was_put_there(self, version):
        promote(version("a1", 1.0), **KNOWN)
        version("b2", 3.0)
        move_by_hand(2)
        found = promote(version("c3", 1.0), **KNOWN)
        assert (found.before, found.moved) == (2, False)
        assert told()[-1] == ("moved by hand", 1, 2, "done")

    def test_an_alias_that_was_taken_away_is_noticed_and_rolled_back(self, version):
        promote(version("a1"), **KNOWN)
        current().client.delete_registered_model_alias("adpet", "champion")
        assert back() == (None, 1)
        assert told()[1:] == [("moved by hand", 1, None, "done"), ("rollback", None, 1, "done")]

    def test_a_champion_from_before_the_history_is_written_down(self, version):
        version("a1")
        move_by_hand(1)
        assert told() == [("moved by hand", None, 1, "done")]


KILLED_BEFORE = "os.kill(os.getpid(), signal.SIGKILL)"
KILLED_AFTER = "move(*arguments); os.kill(os.getpid(), signal.SIGKILL)"


class TestKilled:
    @pytest.mark.parametrize(
        ("moment", "now", "end"), [(KILLED_BEFORE, 1, "void"), (KILLED_AFTER, 2, "done")]
    )
    def test_a_promotion_that_was_killed_half_way_is_ended_by_the_next_command(
        self, version, project, moment, now, end
    ):
        promote(version("a1"), **KNOWN)
        version("b2")
        killed = process(
            project,
            "move = current().client.set_registered_model_alias\n"
            f"def kill(*arguments):\n    {moment}\n"
            "current().client.set_registered_model_alias = kill\n"
            "promotion.promote(2, model_name='adpet', rule=rule)\n",
        )
        _, said = killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL, said
        left = read_book("adpet").decisions[-1]
        assert (left.end, left.after, champion()) == (None, 2, now)
        assert told() == [("promotion", None, 1, "done"), ("promotion", 1, 2, end)]
        assert "half-way" in entries()[-1].end_why
        assert back() == (2, 1) if end == "done" else promote(2, **KNOWN).moved

    def test_one_whose_parent_takes_no_note_of_its_end_holds_nobody_up(self, version, project, monkeypatch):
        version("a1")
        killed = process(
            project,
            "current().client.set_registered_model_alias = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "promotion.promote(1, model_name='adpet', rule=rule)\n",
        )
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
        monkeypatch.setattr(turns, "LONGEST_WAIT", 1.0)
        assert told() == [("promotion", None, 1, "void")]
        assert promote(1, **KNOWN).moved
        killed.communicate(timeout=120)

    def test_one_that_was_killed_while_choosing_its_number_holds_nobody_up(self, version, project):
        version("a1")
        killed = process(
            project,
            "from adpet.tracking import turns\n"
            "turns.write_intent = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
            "promotion.promote(1, model_name='adpet', rule=rule)\n",
        )
        _, said = killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL, said
        assert read_book("adpet").choosing
        assert promote(1, **KNOWN).moved
        assert not read_book("adpet").choosing
        assert not read_book("adpet").removed

    def test_a_living_process_of_another_machine_is_waited_for_a_while_only(self, version, monkeypatch):
        promote(version("a1"), **KNOWN)
        version("b2")
        monkeypatch.setattr(turns, "PATIENCE", 0.3)
        with monkeypatch.context() as patch:
            patch.setattr("adpet.tracking.decisions.owner", lambda: "elsewhere:1:1")
            patch.setattr(promotion, "write_end", lambda *_, **__: None)
            promote(2, **KNOWN)
        start = time.monotonic()
        assert back() == (2, 1)
        assert 0.3 <= time.monotonic() - start < 30
        assert told()[1] == ("promotion", 1, 2, "done")


class TestRace:
    def test_of_two_at_the_same_moment_the_second_meets_the_first_and_nothing_is_lost(self, version, project):
        for lineage in ("a1", "b2", "c3"):
            version(lineage)
        promote(1, **KNOWN)
        start = "print('ready', flush=True); sys.stdin.readline()\n"
        code = (
            "moved = 0\n"
            "for turn in range(200):\n"
            "    moved += promotion.promote(2 + turn % 2, model_name='adpet', rule=rule).moved\n"
            "    if moved == 2: break\n"
            "assert moved == 2\n"
        )
        racing = [process(project, start + code) for _ in range(2)]
        for one in racing:
            assert one.stdout.readline() == "ready\n"
        for one in racing:
            one.stdin.write("go\n")
            one.stdin.flush()
        for one in racing:
            _, said = one.communicate(timeout=300)
            assert one.returncode == 0, said
        done = [one for one in entries() if one.end == "done"]
        assert all(one.kind == "promotion" for one in done)
        # Each was decided against the champion that the one before it had made.
        assert [one.before for one in done[1:]] == [one.after for one in done[:-1]]
        assert champion() == done[-1].after
        assert not read_book("adpet").removed
        assert sorted(Counter(one.owner for one in done).values()) == [1, 2, 2]
        assert version_of("models:/adpet@champion").number in (2, 3)
