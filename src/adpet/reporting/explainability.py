"""Chapters on what may be behind the figures: the size of a leak, and what the network looks at."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from adpet.evaluation.leakage import ARMS
from adpet.evaluation.saliency import MOST_OUTSIDE
from adpet.reporting.brain_figures import group_map_figure, sanity_figure
from adpet.reporting.components import (
    Block,
    Chart,
    Documents,
    Heading,
    Maps,
    Section,
    Table,
    Text,
    glass_brain_figure,
    interval,
    number,
    percent,
    plural,
    png_uri,
    points,
    reach,
    records,
    svg_uri,
    table,
    words,
)
from adpet.reporting.performance_figures import leakage_figure

# A group map of one subject would be that subject's image.
FEWEST_SUBJECTS = 2
KINDS = {
    "referenced": ("referenced", "SD", "Referenced maps"),
    "exact": ("cam", "logit", "Exact class activation maps"),
}
LONG_UNITS = {
    "referenced": "standard deviations from healthy training scans, above the scan's own mean",
    "exact": "logits; + is AD",
}
# The group maps that the report draws, by the names of their files.
GROUP_MAPS = tuple(f"{group}_{kind[0]}" for kind in KINDS.values() for group in ("ad", "cn", "difference"))
METHODS = {
    "cam": "An exact class activation map adds up to the network's logit.",
    "grad-cam": "The head of this network allows no exact map: Grad-CAM's are shown in their place.",
}
CONTROLS = {
    "referenced": "Referenced map",
    "exact": "Exact map",
    "group mean referenced": "Mean referenced map of the group",
    "group mean exact": "Mean exact map of the group",
    "untrained referenced": "Untrained networks, referenced",
    "untrained exact": "Untrained networks, exact",
    "centre": "Nearness to the brain's centre",
}
SCORES = {"pointing": "Pointing", "mass": "Mass", "mass_ratio": "Mass ratio", "auroc": "AUROC", "iou": "IoU"}


def leakage(documents: Documents) -> Section:
    """Return what a slice split would have added, and whether shuffled labels could be learnt."""
    title, audit = "How much a slice split would leak", documents.audit
    if audit is None:
        return _absent(title, "leakage", "The leakage audit", "audit")
    cohort, shown = audit["cohort"], audit["gap"]
    return Section(
        title,
        "leakage",
        (
            Text(f"Audit {audit['verdict']}: {audit['reason']}."),
            Text(
                f"Four small networks on {plural(cohort['subjects'], 'subject')} outside of the test set, "
                f"{cohort['planes']} planes each, {cohort['step_mm']:g} mm apart: by two ways of splitting "
                f"and with true and shuffled labels. The slice split gains {points(shown['true_labels'])} "
                f"with true labels, and {points(shown['shuffled_labels'])} with labels shuffled among "
                "subjects."
            ),
            arms_table(audit),
            Chart(
                svg_uri(leakage_figure(audit)),
                "Accuracy per slice of the four networks: the slice split lies above the subject split "
                "with true and with shuffled labels; the numbers are in the table.",
                "What knowing the subjects is worth.",
                wide=True,
            ),
        ),
    )


def arms_table(audit: Mapping[str, Any]) -> Table:
    """Return the four networks of the audit."""
    rows = []
    for name in ARMS:
        arm = audit["arms"][name]
        accuracy = arm["slice"]["accuracy"]
        rows.append(
            (
                words(name),
                number(accuracy["value"]),
                reach(accuracy),
                number(arm["slice"]["auc"]["value"]),
                number(arm["training_accuracy"]),
                str(arm["shared_subjects"]),
            )
        )
    columns = (
        "Network", "Accuracy per slice", "95 % interval", "AUC per slice", "Training accuracy",
        "Subjects on both sides",
    )  # fmt: skip
    return table("The four networks of the leakage audit", columns, rows)


def attention(documents: Documents) -> Section:
    """Return the group maps, where they lie, and whether they may be believed."""
    title, cam = "What the network looks at", documents.cam
    if cam is None:
        return _absent(title, "maps", "Class activation maps", "explain")
    blocks: list[Block] = [
        Text(
            f"{METHODS[cam['method']]} A referenced map joins that map with integrated gradients, which "
            "carry it down to the pixels: what each adds to the log-odds of AD by its departure from the "
            "mean healthy slice. Both are distances from the maps of "
            f"{plural(cam['reference_scans'], 'healthy training scan')}, in standard deviations, above the "
            "scan's own mean: a network looks at some places in everybody, and an ill brain lifts its map "
            "everywhere. Of that, what lies along the ways in which healthy maps differ as a whole is kept, "
            "and the noise of single places is not: it says where something is unusual in this subject."
        ),
        _alarms(cam),
        masses_table(cam),
    ]
    if documents.maps is not None:
        blocks += _pictures(documents, documents.maps)
        blocks += [Heading("By region"), regions_table(documents.maps.regions)]
    blocks += _truth(cam["truth"])
    blocks += _sanity(cam["sanity"], documents.maps)
    return Section(title, "maps", tuple(blocks))


def masses_table(cam: Mapping[str, Any]) -> Table:
    """Return, by map and group, where the mean map has its mass."""
    rows = [
        (
            f"{words(kind)}: {_group(name)}",
            str(facts["scans"]),
            percent(1 - facts["share_inside_brain"]),
            percent(facts["ad_pattern"]["mass"]),
            number(facts["ad_pattern"]["over_volume"], 2),
        )
        for kind in KINDS
        for name, facts in cam[kind].items()
    ]
    columns = ("Mean map", "Scans", "Outside of the brain", "Where AD begins", "Over its share of the brain")
    return table("Where the groups' mean maps have their mass", columns, rows)


def regions_table(regions: pd.DataFrame) -> Table:
    """Return the regions by how dense the patients' referenced map is in them."""
    rows = [
        (
            f"{row['region']}{' *' if row['ad_pattern'] else ''}",
            number(row["ad_referenced_density"], 2),
            number(row["cn_referenced_density"], 2),
            percent(row["ad_referenced_mass"]),
            number(row["ad_uptake"], 2),
            number(row["cn_uptake"], 2),
        )
        for row in records(regions.sort_values("ad_referenced_density", ascending=False, kind="stable"))
    ]
    columns = ("Region", "Density, AD", "Density, CN", "Mass, AD", "Uptake, AD", "Uptake, CN")
    caption = (
        "Referenced maps and uptake by region. Density: share of the map over share of the brain, 1 is "
        "even. Uptake: ratio to the reference region. * Alzheimer's disease begins here."
    )
    return table(caption, columns, rows)


def truth_table(truth: Mapping[str, Any]) -> Table:
    """Return how well the maps, and controls that know nothing, find the simulated deficit."""
    rows = [
        (
            title,
            *(f"{number(scores[key]['value'], 2)} ({reach(scores[key], 2)})" for key in SCORES),
        )
        for name, title in CONTROLS.items()
        if (scores := truth["scores"].get(name))
    ]
    caption = (
        f"Maps of {plural(truth['scans'], 'rightly called AD scan')} against the simulated deficit, which "
        f"covers {percent(truth['area_share'])} of what is scored; 95 % intervals over subjects"
    )
    return table(caption, ("Map", *SCORES.values()), rows)


def _absent(title: str, anchor: str, what: str, stage: str) -> Section:
    return Section(title, anchor, (Text(f"{what} are not there; to make them, run: dvc repro {stage}."),))


def _alarms(cam: Mapping[str, Any]) -> Text:
    if not cam["alarms"]:
        return Text(f"No mean map has more than {percent(MOST_OUTSIDE)} of its mass outside of the brain.")
    found = [
        f"{kind} {_group(name)} {percent(outside)}"
        for kind in KINDS
        for name, facts in cam[kind].items()
        if (outside := 1 - facts["share_inside_brain"]) > MOST_OUTSIDE
    ]
    return Text(
        f"{plural(len(cam['alarms']), 'alarm')}: more than {percent(MOST_OUTSIDE)} of the mass of these "
        f"mean maps lies outside of the brain, where there is no disease: {'; '.join(found)}. Look at the "
        "montages of single scans before you believe the model."
    )


def _group(name: str) -> str:
    """Return a group's name as words: ``ad_wrong`` are patients that were called wrongly."""
    diagnosis, _, called = name.partition("_")
    return diagnosis.upper() + {"": "", "correct": ", called rightly", "wrong": ", called wrongly"}[called]


def _pictures(documents: Documents, maps: Maps) -> list[Block]:
    """Return the group maps on coronal sections and in a glass brain."""
    counts = documents.metrics["counts"]
    if min(counts["subjects_ad"], counts["subjects_cn"]) < FEWEST_SUBJECTS:
        return [Text("Group maps are not shown: with one subject a group's map is that subject's image.")]
    blocks: list[Block] = []
    for kind, (suffix, unit, title) in KINDS.items():
        ad, cn, difference = (maps.volumes[f"{name}_{suffix}"] for name in ("ad", "cn", "difference"))
        facts = (documents.cam or {})[kind]
        figure = group_map_figure(
            ad, cn, difference, maps.underlay, maps.affine,
            n_ad=facts["ad"]["scans"], n_cn=facts["cn"]["scans"], hide_below=maps.hide_below, unit=unit,
        )  # fmt: skip
        pattern = {group: facts[group]["ad_pattern"] for group in ("ad", "cn")}
        alt = (
            f"{title} of the AD and CN test scans and their difference on coronal sections, patient's left "
            "on the left. In the regions that Alzheimer's disease begins in lie "
            f"{percent(pattern['ad']['mass'])} of the AD map and {percent(pattern['cn']['mass'])} of the CN "
            "map."
        )
        caption = f"{title}, mean of each group ({LONG_UNITS[kind]}). L and R are the patient's."
        blocks.append(Chart(png_uri(figure), alt, caption, wide=True))
    difference = maps.volumes["difference_referenced"]
    glass = glass_brain_figure(difference, maps.affine, hide_below=maps.hide_below)
    alt = (
        "AD less CN of the referenced maps through a glass brain, from the left, behind, the right and above."
    )
    caption = "AD less CN of the referenced maps in SD: the strongest value along each line of sight."
    return [*blocks, Chart(png_uri(glass), alt, caption, wide=True)]


def _truth(truth: Mapping[str, Any]) -> list[Block]:
    heading = Heading("Against the truth")
    if not truth["scans"]:
        return [heading, Text("The truth is known of simulated scans alone: these maps could not be scored.")]
    blank = truth["untrained"]
    found = blank["untrained referenced"]
    text = (
        "Pointing: the map's highest voxel lies in the deficit. Mass: share of the map in it; the ratio is "
        "over the deficit's own share. AUROC: a voxel of the deficit is higher than another. IoU: overlap "
        "of the deficit with as many of the highest voxels. What is below the untrained networks' finds "
        f"nothing. They are {blank['networks']}, of which one may call dark bright and another the other way "
        f"round: their referenced maps' AUROC lies between {number(found['auroc']['lowest'], 2)} and "
        f"{number(found['auroc']['highest'], 2)}, pointing between {number(found['pointing']['lowest'], 2)} "
        f"and {number(found['pointing']['highest'], 2)}."
    )
    return [heading, Text(text), truth_table(truth)]


def _sanity(sanity: Mapping[str, Any], maps: Maps | None) -> list[Block]:
    heading = Heading("Sanity checks")
    if not sanity["scans"]:
        return [heading, Text("No AD scan was there to check the maps on.")]
    areas = sanity["area_over_random"]
    last = sanity["cascade"][-1]["similarity"]
    text = (
        f"On {plural(sanity['scans'], 'AD scan')}. With all weights drawn anew the maps' rank correlation "
        f"with the original ones is {number(last, 2)}: a map that stayed alike would show the image, not "
        "the network. Where the referenced map points, healthy tissue put in lowers the log-odds by "
        f"{number(areas['referenced']['deletion'], 2)} more than tissue put in at random (mean over the "
        "share replaced), and tissue put into a healthy scan raises it by "
        f"{number(areas['referenced']['insertion'], 2)} more; for exact maps "
        f"{number(areas['exact']['deletion'], 2)} and {number(areas['exact']['insertion'], 2)}."
    )
    rows = [(row["layer"], number(row["similarity"], 2)) for row in sanity["cascade"]]
    blocks: list[Block] = [heading, Text(text)]
    if maps is not None and maps.cascade is not None and maps.curves is not None:
        blocks.append(
            Chart(
                svg_uri(sanity_figure(maps.cascade, maps.curves)),
                "Left: how alike maps stay as weights are drawn anew from the head down. Right: log-odds "
                "as tissue is replaced in the maps' order and at random; the numbers are in text and "
                "table.",
                "Weights drawn anew, and tissue replaced.",
                wide=True,
            )
        )
    caption = "Similarity to the original maps with the weights drawn anew down to a layer"
    return [*blocks, table(caption, ("Layer", "Rank correlation"), rows)]


def truth_sentence(truth: Mapping[str, Any]) -> str:
    """Return how well the referenced maps find the deficit, in words."""
    return f"AUROC of the referenced maps {interval(truth['scores']['referenced']['auroc'])}"
