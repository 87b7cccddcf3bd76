"""Every condition is printed with its numbers, and a no is one line and another exit status."""

import pytest

from adpet import cli
from adpet.commands import history as history_command
from adpet.commands import promote as promote_command
from adpet.commands import rollback as rollback_command
from adpet.evaluation.promotion import Condition
from adpet.tracking import promotion
from adpet.tracking.decisions import Book, Decision
from adpet.tracking.promotion import Promotion, Rollback

MET = Condition("AUC", met=True, text="0.950 (95 % interval 0.900 to 0.980); required: lower end over 0.8")
MISSED = Condition("region baseline", met=False, text="AUC difference +0.000")


@pytest.fixture
def promote(monkeypatch, project_root):
    """Run ``adpet promote``, where the judgement is what the test makes of it."""

    def run(result, *arguments):
        asked = {}

        def judged(version, **options):
            asked.update(options, version=version)
            return result

        monkeypatch.chdir(project_root)
        monkeypatch.setattr(promote_command, "connect", lambda *_, **__: None)
        monkeypatch.setattr(promotion, "promote", judged)
        cli.main(["promote", *arguments])
        return asked

    return run


def result(*conditions, before=None, moved=False):
    return Promotion(before=before, after=2, conditions=list(conditions), moved=moved)


class TestPromote:
    def test_a_yes_is_told_with_every_condition(self, promote, capsys):
        asked = promote(result(MET, moved=True, before=1))
        assert asked["version"] == "challenger"
        assert (asked["rule"].baseline_margin, asked["rule"].resamples, asked["forced"]) == (0.0, 2000, None)
        assert capsys.readouterr().out.splitlines() == [
            "met      AUC              0.950 (95 % interval 0.900 to 0.980); required: lower end over 0.8",
            "",
            "adpet version 2 is the champion now; version 1 was it before",
        ]

    def test_a_no_is_the_same_table_and_one_line_that_says_what_was_missed(self, promote, capsys):
        with pytest.raises(SystemExit) as stopped:
            promote(result(MET, MISSED), "2")
        assert str(stopped.value) == (
            "adpet promote: models:/adpet/2: required every condition; not met: region baseline; improve the "
            'model, or decide otherwise with: adpet promote 2 --force --reason "..."'
        )
        lines = capsys.readouterr().out.splitlines()
        assert lines[1] == "NOT MET  region baseline  AUC difference +0.000"
        assert lines[-1] == "adpet version 2 does not become the champion"

    def test_a_dry_run_says_what_would_be_and_has_the_same_exit_status(self, promote, capsys):
        assert promote(result(MET), "--dry-run")["dry_run"] is True
        assert "would become the champion; nothing was changed" in capsys.readouterr().out
        with pytest.raises(SystemExit, match="not met: region baseline"):
            promote(result(MISSED), "--dry-run")

    def test_force_is_told_with_its_reason(self, promote, capsys):
        asked = promote(result(MISSED, moved=True), "--force", "--reason", "for the demo")
        assert asked["forced"] == "for the demo"
        assert "is the champion now, by force: for the demo; there was none" in capsys.readouterr().out

    def test_a_dry_run_by_force_says_that_it_would_become_the_champion_and_refuses_nothing(
        self, promote, capsys
    ):
        promote(result(MISSED), "--dry-run", "--force", "--reason", "for the demo")
        assert capsys.readouterr().out.splitlines()[-1] == (
            "adpet version 2 would become the champion, by force: for the demo; nothing was changed"
        )

    def test_no_reason_and_no_condition_forges_a_line(self, promote, capsys):
        promote(
            result(Condition("AUC", met=False, text="a\nmet b"), moved=True),
            *("--force", "--reason", "x]\n2026-01-01  7\x1b[2K"),
        )
        assert capsys.readouterr().out.splitlines() == [
            "NOT MET  AUC              a met b",
            "",
            "adpet version 2 is the champion now, by force: x] 2026-01-01 7 [2K; there was none before",
        ]

    @pytest.mark.parametrize(
        "arguments",
        [["--force"], ["--reason", "x"], ["--force", "--reason", " "], ["--reason", ""], ["--reason", " "]],
    )
    def test_force_needs_a_reason_and_a_reason_force(self, promote, arguments):
        with pytest.raises(SystemExit, match="required --force and --reason together"):
            promote(result(MET), *arguments)

    def test_the_champion_stays_it(self, promote, capsys):
        promote(result(before=2))
        assert capsys.readouterr().out == "adpet version 2 is the champion already\n"


class TestRollback:
    @pytest.mark.parametrize(
        ("before", "skipped", "told"),
        [
            (3, (), "adpet version 1 is the champion again; version 3 was it before"),
            (
                *(None, (3, 2)),
                "adpet version 1 is the champion again; there was none; skipped, since deleted: versions 3, 2",
            ),
        ],
    )
    def test_it_tells_who_returns_and_what_was_skipped(
        self, monkeypatch, project_root, before, skipped, told
    ):
        monkeypatch.chdir(project_root)
        monkeypatch.setattr(rollback_command, "connect", lambda *_, **__: None)
        found = Rollback(before=before, after=1, skipped=skipped)
        monkeypatch.setattr(promotion, "rollback", lambda **_: found)
        assert rollback_command.run(reason="") == told


class TestHistory:
    def told(self, monkeypatch, project_root, *decisions, champion=None):
        monkeypatch.chdir(project_root)
        monkeypatch.setattr(history_command, "connect", lambda *_, **__: None)
        book = Book(decisions, champion, {})
        monkeypatch.setattr(promotion, "history", lambda **_: book)
        return history_command.run()

    def decision(self, number, **changes):
        known = {
            "kind": "promotion", "before": None, "after": 1, "why": "every condition is met", "number": number,
            "id": "a", "who": "anna", "at": "2026-11-25T01:22:03.123Z", "owner": "x:1:1", "end": "done",
        }  # fmt: skip
        return Decision(**(known | changes))

    def test_every_decision_is_a_line(self, monkeypatch, project_root):
        text = self.told(
            monkeypatch,
            project_root,
            self.decision(1),
            self.decision(2, kind="moved by hand", before=1, after=2, why="set in the MLflow UI"),
            self.decision(
                3, before=2, after=3, forced=True, why="demo", conditions=("AUC: NOT MET: 0.5", "x: met: y")
            ),
            self.decision(4, before=3, after=4, why="", end=None),
            self.decision(5, before=3, after=5, why="", end="unknown", end_why="the process ended half-way"),
            self.decision(6, kind="rollback", before=3, after=2, why=""),
            champion=2,
        )
        assert text.splitlines() == [
            "when (UTC)           champion   before  by                decision",
            "2026-11-25 01:22:03  1          none    anna              promotion: every condition is met",
            "2026-11-25 01:22:03  2          1       ? (seen by anna)  moved by hand: set in the MLflow UI",
            "2026-11-25 01:22:03  3          2       anna              promotion by force (not met: AUC): demo",
            "2026-11-25 01:22:03  unchanged  3       anna              promotion [meant for version 4; unfinished]",
            "2026-11-25 01:22:03  unknown    3       anna              promotion [meant for version 5; the process ended half-way]",
            "2026-11-25 01:22:03  2          3       anna              rollback",
        ]

    def test_a_decision_that_was_removed_leaves_a_line_and_an_idle_look_none(self, monkeypatch, project_root):
        text = self.told(
            *(monkeypatch, project_root, self.decision(2)),
            self.decision(3, kind="moved by hand", end="void"),
            champion=1,
        )
        assert text.splitlines()[1:] == [
            "?                    ?         ?       ?     decision 1 was removed from the registry",
            "2026-11-25 01:22:03  1         none    anna  promotion: every condition is met",
        ]

    @pytest.mark.parametrize(("champion", "where"), [(3, "points to version 3 now"), (None, "is gone")])
    def test_a_move_by_hand_that_could_not_be_written_down_is_told_last(
        self, monkeypatch, project_root, champion, where
    ):
        text = self.told(monkeypatch, project_root, self.decision(1), champion=champion)
        last = f"the alias {where}, which is not yet written down: that takes EDIT on the model"
        assert text.splitlines()[2:] == [last]

    def test_none_yet_says_what_to_do(self, monkeypatch, project_root):
        assert "make one with: adpet promote" in self.told(monkeypatch, project_root)
