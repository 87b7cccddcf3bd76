"""Make a version the champion, if it meets every condition."""

import argparse
from pathlib import Path

from adpet.errors import AdpetError
from adpet.evaluation.promotion import Condition, Rule
from adpet.params import Params, load_params
from adpet.tracking import promotion
from adpet.tracking.promotion import printable
from adpet.tracking.store import connect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "version", nargs="?", default="challenger", help="a version number or alias (default: challenger)"
    )
    parser.add_argument(
        "--force", action="store_true", help="promote it whatever the conditions say; needs --reason"
    )
    parser.add_argument("--reason", default=None, help="why; it is written down in the registry")
    parser.add_argument("--dry-run", action="store_true", help="show the conditions, and change nothing")


def main(*, version: str, force: bool, reason: str | None, dry_run: bool) -> str:
    """Judge a version and move the alias; refusals are errors.

    Returns every condition with its numbers, and the outcome; a refusal prints them.
    """
    forced = (reason or "").strip() or None
    if force != (forced is not None) or (reason is not None and forced is None):
        raise AdpetError(
            'required --force and --reason together; received one of them; say why in --reason "..."'
        )
    params = load_params()
    name = params.tracking.model_name
    connect(Path.cwd(), experiment=params.tracking.experiment)
    result = promotion.promote(version, model_name=name, rule=rule_of(params), forced=forced, dry_run=dry_run)
    if result.before == result.after:
        return f"{name} version {result.after} is the champion already"
    verdict = _verdict(result, name, forced=forced, dry_run=dry_run)
    table = "\n".join([*map(_line, result.conditions), "", verdict])
    if forced is None and not result.granted:
        print(table)
        raise AdpetError(_refusal(result, name))
    return table


def rule_of(params: Params) -> Rule:
    """Return the conditions of a promotion."""
    return Rule(**params.promotion.model_dump(), seed=params.seed, resamples=params.evaluate.resamples)


def _line(condition: Condition) -> str:
    return f"{'met' if condition.met else 'NOT MET':<9}{condition.name:<17}{printable(condition.text)}"


def _verdict(result: promotion.Promotion, name: str, *, forced: str | None, dry_run: bool) -> str:
    was = f"version {result.before} was it before" if result.before else "there was none before"
    by = f", by force: {printable(forced)}" if forced is not None else ""
    if result.moved:
        return f"{name} version {result.after} is the champion now{by}; {was}"
    if dry_run:
        answer = "would become" if result.granted or forced is not None else "would not become"
        return f"{name} version {result.after} {answer} the champion{by}; nothing was changed"
    return f"{name} version {result.after} does not become the champion"


def _refusal(result: promotion.Promotion, name: str) -> str:
    missed = [condition.name for condition in result.conditions if not condition.met]
    return (
        f"models:/{name}/{result.after}: required every condition; not met: {', '.join(missed)}; "
        "improve the model, or decide otherwise with: adpet promote "
        f'{result.after} --force --reason "..."'
    )
