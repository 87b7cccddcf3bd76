"""Every condition is printed with its numbers; a refusal is one line and another exit status."""

import pytest

from adpet import cli
from adpet.commands import history as history_command
from adpet.commands import promote as promote_command
from adpet.commands import rollback as rollback_command
from adpet.evaluation.promotion import Condition
from adpet.tracking import promotion
from adpet.tracking.promotion import Decision, History, Promotion, Rollback

MET = Condition("AUC", met=True, text="0.950 (95 % interval 0.900 to 0.980); required: lower end over 0.8")
MISSED = Condition("baseline", met=False, text="AUC difference +0.000")


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
    def test_a_yes_is_printed_with_every_condition(self, promote, capsys):
        asked = promote(result(MET, moved=True, before=1))
        assert asked["version"] == "challenger"
        assert (asked["rule"].baseline_margin, asked["rule"].resamples, asked["forced"]) == (0.05, 2000, None)
        assert capsys.readouterr().out.splitlines() == [
            "met      AUC              0.950 (95 % interval 0.900 to 0.980); required: lower end over 0.8",
            "",
            "adpet version 2 is the champion now; version 1 was it before",
        ]

    def test_a_no_is_the_same_table_and_one_line_that_says_what_was_missed(self, promote, capsys):
        with pytest.raises(SystemExit) as stopped:
            promote(result(MET, MISSED), "2")
        assert str(stopped.value) == (
            "adpet promote: models:/adpet/2: required every condition; not met: baseline; improve the "
            'model, or decide otherwise with: adpet promote 2 --force --reason "..."'
        )
        lines = capsys.readouterr().out.splitlines()
        assert lines[1] == "NOT MET  baseline         AUC difference +0.000"
        assert lines[-1] == "adpet version 2 does not become the champion"

    def test_a_dry_run_says_what_would_be_and_has_the_same_exit_status(self, promote, capsys):
        assert promote(result(MET), "--dry-run")["dry_run"] is True
        assert "would become the champion; nothing was changed" in capsys.readouterr().out
        with pytest.raises(SystemExit, match="not met: baseline"):
            promote(result(MISSED), "--dry-run")
        capsys.readouterr()
        promote(result(MISSED), "--dry-run", "--force", "--reason", "demo")
        assert "would become the champion, by force: demo; nothing was changed" in capsys.readouterr().out

    def test_force_is_printed_with_its_reason_which_forges_no_line(self, promote, capsys):
        missed = Condition("AUC", met=False, text="a\nmet b")
        asked = promote(result(missed, moved=True), "--force", "--reason", "x]\n2026-01-01  7\x1b[2K")
        assert asked["forced"].startswith("x]")
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

    def test_the_champion_stays_the_champion(self, promote, capsys):
        promote(result(before=2))
        assert capsys.readouterr().out == "adpet version 2 is the champion already\n"


def test_rollback_names_the_champion_and_what_was_skipped(monkeypatch, project_root):
    monkeypatch.chdir(project_root)
    monkeypatch.setattr(rollback_command, "connect", lambda *_, **__: None)
    monkeypatch.setattr(promotion, "rollback", lambda **_: Rollback(before=None, after=1, skipped=(3, 2)))
    assert rollback_command.main(reason="") == (
        "adpet version 1 is the champion again; there was none; skipped, since deleted: versions 3, 2"
    )


class TestHistory:
    @pytest.fixture
    def table(self, monkeypatch, project_root):
        def table(*decisions, champion=None):
            monkeypatch.chdir(project_root)
            monkeypatch.setattr(history_command, "connect", lambda *_, **__: None)
            monkeypatch.setattr(promotion, "read_history", lambda _: History(decisions, champion))
            return history_command.main().splitlines()

        return table

    def decision(self, number, **changes):
        known = {
            "kind": "promotion", "before": None, "after": 1, "why": "every condition is met", "number": number,
            "id": "a", "who": "anna", "at": "2026-11-25T01:22:03.123Z", "end": "done",
        }  # fmt: skip
        return Decision(**(known | changes))

    def test_every_decision_and_move_by_hand_is_a_line(self, table):
        assert table(
            self.decision(1),
            self.decision(2, before=2, after=3, forced=True, why="demo", conditions=("AUC: NOT MET: 0.5", "x: met: y")),
            self.decision(3, before=3, after=4, why="", end=""),
            self.decision(4, before=3, after=5, why="", end="overtaken"),
            self.decision(5, kind="rollback", before=3, after=1, why=""),
            champion=1,
        ) == [
            "when (UTC)           champion   before  by    decision",
            "2026-11-25 01:22:03  1          none    anna  promotion: every condition is met",
            "?                    2          1       ?     moved by hand: set in the MLflow UI, by another tool, or by an unfinished decision",
            "2026-11-25 01:22:03  3          2       anna  promotion by force (not met: AUC): demo",
            "2026-11-25 01:22:03  unchanged  3       anna  promotion [meant for version 4; unfinished]",
            "2026-11-25 01:22:03  unchanged  3       anna  promotion [meant for version 5; overtaken]",
            "2026-11-25 01:22:03  1          3       anna  rollback",
        ]  # fmt: skip

    def test_removed_decisions_and_a_missing_alias_are_lines(self, table):
        assert table(self.decision(2))[1:3] == [
            "?                    ?         ?       ?     decision 1 was removed from the registry",
            "2026-11-25 01:22:03  1         none    anna  promotion: every condition is met",
        ]
        assert table(self.decision(2))[3].split()[:6] == ["?", "none", "1", "?", "moved", "by"]

    def test_no_decision_yet_says_what_to_do(self, table):
        assert table() == ["adpet never had a champion; make one with: adpet promote"]
