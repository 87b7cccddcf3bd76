"""Report sections: data, training, lineage, limitations."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from adpet.cohort.scans import DIAGNOSES
from adpet.evaluation.bootstrap import exact_interval
from adpet.reporting import training_figures
from adpet.reporting.components import (
    Block,
    Chart,
    Documents,
    Heading,
    Items,
    Search,
    Table,
    Text,
    data_uri,
    format_ci,
    humanize,
    number,
    percent,
    plural,
    typeset,
)
from adpet.storage import flatten

# With fewer complete trials parameter importances are rough.
FEW_TRIALS = 20


def data(documents: Documents) -> list[Block]:
    """Return the section on scans and split."""
    ingest, split = documents.ingest, documents.split
    source = (
        "All scans are simulated: no number is about a patient."
        if documents.is_simulated
        else "The scans are those of the collection given to the pipeline."
    )
    places = [
        (f"{title}: {name or 'unknown'}", str(count))
        for title, key in (("Site", "sites"), ("Scanner", "scanners"))
        for name, count in ingest[key].items()
    ]
    return [
        Text(f"{source} {ingest['scans']} scans of {plural(ingest['subjects'], 'subject')} are used."),
        Text(set_aside(ingest)),
        *(Text(typeset(f"Warning: {warning}")) for warning in ingest["warnings"]),
        _groups_table(ingest),
        Table("Scans by site and scanner", ("Origin", "Scans"), places),
        Text(split_sentence(split)),
        split_table(split),
    ]


def _groups_table(ingest: Mapping[str, Any]) -> Table:
    rows = []
    for name in DIAGNOSES:
        group = ingest["diagnosis"][name]
        age, sex = group["age"], group["sex"]
        spread = f"{number(age['mean'], 1)} (SD {number(age['sd'], 1)}), {age['known']} known"
        years = spread if age["known"] else "not known"
        sexes = " / ".join(str(sex.get(key, 0)) for key in ("F", "M", "unknown"))
        rows.append((name, str(group["subjects"]), str(group["scans"]), years, sexes))
    columns = ("Diagnosis", "Subjects", "Scans", "Age at first scan", "F / M / unknown")
    return Table("Subjects", columns, rows)


def set_aside(ingest: Mapping[str, Any]) -> str:
    """Return the number of excluded files."""
    unusable, skipped = (ingest["rejected"][kind]["files"] for kind in ("unusable", "skipped"))
    if not unusable + skipped:
        return "No file was excluded."
    return (
        f"{plural(unusable, 'unusable file')} and {plural(skipped, 'file')} of another kind were excluded; "
        "data/interim/rejected.csv lists the reasons."
    )


def split_sentence(split: Mapping[str, Any]) -> str:
    """Return how the split was made, and whether it leaks."""
    leak = "LEAKY: subjects are on both sides. " if split["leaky"] else "No subject is on two sides. "
    return f"{leak}The unit of the split is the {split['unit']}; its hash is {split['hash'][:16]}."


def split_table(split: Mapping[str, Any]) -> Table:
    """Return the parts of the split."""
    rows = [
        (
            humanize(name),
            *(str(part[key]) for key in ("subjects", "AD", "CN", "scans", "slices")),
            number(part.get("age_mean"), 1),
            percent(part["women"]) if part.get("women") is not None else "-",
        )
        for name, part in split["parts"].items()
    ]
    columns = ("Part", "Subjects", "AD", "CN", "Scans", "Slices", "Mean age", "Women")
    return Table("Parts of the split", columns, rows)


def _how_trained(folds: int, epochs: int, best: int) -> str:
    if not folds:
        return f"One network was trained for {plural(epochs, 'epoch')}, and epoch {best} was kept. It has: "
    return (
        f"The model is the ensemble of {plural(folds, 'network')}, each trained for "
        f"{plural(epochs, 'epoch')} without one fold, which it then predicted: these predictions give "
        f"position weights, calibration and threshold. Epoch {best} was kept (the median). Means over folds: "
    )


def training(documents: Documents) -> list[Block]:
    """Return the section on search and training."""
    final, folds = documents.trained["final"], len(documents.trained["folds"])
    history, best = documents.history, documents.trained["best_epoch"]
    return [
        *_search(documents.search),
        Heading("Training"),
        Text(
            _how_trained(folds, len(history), best)
            + ", ".join(f"{humanize(name).lower()} {number(value)}" for name, value in final.items())
            + "."
        ),
        Chart(
            data_uri(training_figures.learning_curves_figure(history, best_epoch=best)),
            f"Training and validation measures over {plural(len(history), 'epoch')}"
            + (", means over networks" if folds else "")
            + f"; epoch {best} was kept{' (the median)' if folds else ''}.",
            "Learning curves.",
            wide=True,
        ),
    ]


def _search(search: Search | None) -> Iterator[Block]:
    yield Heading("Hyperparameter search")
    if search is None or search.trials.empty:
        yield Text(
            "There was no search: every hyperparameter has a fixed value, listed under the parameters."
        )
        return
    states = search.trials["state"].value_counts()
    complete = int(states.get("COMPLETE", 0))
    sense = "highest" if search.rising else "lowest"
    yield Text(
        f"{plural(len(search.trials), 'trial')}, {complete} of them complete; the one with the {sense} "
        f"{humanize(search.monitor).lower()} was used. Test subjects were not used."
    )
    yield _trials_table(search)
    direction: Literal["minimize", "maximize"] = "maximize" if search.rising else "minimize"
    figure = training_figures.search_figure(
        search.trials, direction=direction, value_name=search.monitor, logarithmic=search.logarithmic
    )
    yield Chart(
        data_uri(figure),
        "Value of each trial with the best so far, and each parameter against the value; the numbers "
        "are in the table.",
        "History of the search, and each parameter against the value.",
        wide=True,
    )
    if not search.importance:
        yield Text("There are too few trials, or too similar ones, to estimate parameter importances.")
        return
    first = next(iter(search.importance))
    count = len(search.trials)
    few = f" From {count} trials this is a rough estimate." if count < FEW_TRIALS else ""
    yield Chart(
        data_uri(training_figures.importance_figure(search.importance)),
        f"Share of the variance over trials that each parameter explains; the largest is {first}: "
        f"{number(search.importance[first], 2)}.",
        f"Importance of the parameters by fANOVA; a trial that was stopped counts with its last value.{few}",
    )


def _trials_table(search: Search) -> Table:
    names = [name for name in search.trials.columns if name.startswith(training_figures.PARAMETER_PREFIX)]
    rows = [
        (
            str(row["number"]),
            str(row["state"]).lower(),
            number(row["value"]),
            *(_value(row[name], digits=3) for name in names),
        )
        for row in search.trials.to_dict("records")
    ]
    columns = ("Trial", "State", "Value", *(name.rpartition(".")[2].replace("_", " ") for name in names))
    return Table(f"Trials; value: {humanize(search.monitor).lower()}", columns, rows)


def lineage(documents: Documents) -> list[Block]:
    """Return the section on lineage, versions and parameters."""
    facts = documents.lineage
    rows = [
        (humanize(key), str(facts[key]))
        for key in ("id", "data", "split", "commit", "code", "seed", "backend")
        if key in facts
    ]
    parameters = [(key, _value(value)) for key, value in flatten(facts["params"]).items()]
    return [
        Text("The same data, split, parameters, code, seed and versions reproduce the same model."),
        Table("What the model was made from", ("Fact", "Value"), rows, numeric=False),
        Table("Versions", ("Package", "Version"), list(facts["versions"].items()), numeric=False),
        Table("Parameters of the training", ("Parameter", "Value"), parameters, numeric=False),
    ]


def limits(documents: Documents) -> list[Block]:
    """Return the section on limitations."""
    return [Items(tuple(limit_sentences(documents)))]


def limit_sentences(documents: Documents) -> list[str]:
    """Return the limitations, specific ones first."""
    metrics = documents.metrics
    counts = metrics["counts"]
    least = min(counts["subjects_ad"], counts["subjects_cn"])
    low, high = exact_interval(1.0, n=least)
    simulated = (
        "All scans are simulated: the numbers show that the pipeline works, and nothing about patients."
    )
    return [
        *([simulated] if documents.is_simulated else []),
        (
            f"Even a flawless result on {plural(least, 'subject')} of a diagnosis leaves a sensitivity or "
            f"specificity anywhere from {number(low, 2)} to {number(high, 2)} (95 % interval)."
        ),
        "One network was tested on one split: intervals are over subjects, and do not include the variation "
        "between networks."
        if not (documents.cross_validation or {}).get("folds")
        else "Intervals are over subjects; the spread over folds shows the variation between networks.",
        (
            "Calibration is that of networks trained without each fold; its error on the test subjects is "
            f"{number(metrics['subject']['calibration_error']['value'])} "
            f"({format_ci(metrics['subject']['calibration_error'])}), and it is biased upwards for few "
            "subjects."
        ),
        "Test, validation and training subjects are of one collection: performance on scans of another "
        "hospital may be worse, which adpet validate measures."
        if documents.external is None
        else f"One other collection was tested, {documents.external['cohort']}: performance elsewhere may be "
        "worse.",
        (
            "The model separates AD from CN only. MCI, other dementias and subjects of another age were "
            "never seen, and are predicted as one of the two."
        ),
        "The reference is the collection's clinical diagnosis, not pathology.",
        "A saliency map shows what the network responds to, not where disease is.",
    ]


def _value(value: Any, *, digits: int = 6) -> str:
    """Return a parameter as written in ``params.yaml``."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return ", ".join(map(_value, value)) if isinstance(value, list | tuple) else str(value)
