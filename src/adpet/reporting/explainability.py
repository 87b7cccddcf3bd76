"""Report sections: leakage test and explainability."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from adpet.evaluation.leakage import ARMS
from adpet.evaluation.saliency import MOST_OUTSIDE, RIVALS
from adpet.reporting.brain_figures import glass_brain_figure, group_map_figure, sanity_figure
from adpet.reporting.components import (
    Block,
    Chart,
    Documents,
    Heading,
    Maps,
    Table,
    Text,
    data_uri,
    format_ci,
    humanize,
    number,
    percent,
    plural,
    points,
    typeset,
    value_and_ci,
)
from adpet.reporting.performance_figures import leakage_figure

# A group map of one subject would be that subject's image.
FEWEST_SUBJECTS = 2
KINDS = {
    "exact": ("cam", "logit", "Where the network looked: class activation maps (CAM)"),
    "z-map": ("low_uptake", "SD", "Where these brains are unusual: z-maps without a network"),
    "referenced": ("referenced", "SD", "Z-scored attribution maps"),
}
LONG_UNITS = {
    "referenced": "standard deviations from healthy training scans, minus the scan's mean",
    "exact": "logits; + is AD",
    "z-map": "standard deviations below healthy training scans of that age",
}
NAMES = {"referenced": "Z-scored", "exact": "CAM"}
# The group maps that the report draws, by the names of their files.
GROUP_MAPS = tuple(f"{group}_{kind[0]}" for kind in KINDS.values() for group in ("ad", "cn", "difference"))
METHODS = {
    "cam": "A class activation map (CAM) adds up to the network's logit.",
    "grad-cam": "The head of this network does not allow CAM: Grad-CAM is shown instead.",
}
CONTROLS = {
    "referenced": "Z-scored attribution map",
    "exact": "CAM",
    "z-map": "Z-map without a network",
    "other patients referenced": "Other patients, z-scored",
    "other patients exact": "Other patients, CAM",
    "other patients z-map": "Other patients, z-map",
    "group mean referenced": "Group mean, z-scored",
    "group mean exact": "Group mean, CAM",
    "group mean z-map": "Group mean, z-map",
    "untrained referenced": "Untrained networks, z-scored",
    "untrained exact": "Untrained networks, CAM",
    "centre": "Proximity to the brain's centre",
}
OUTCOMES = {"": "", "correct": ", correctly classified", "wrong": ", misclassified"}
SCORES = {"pointing": "Pointing", "mass": "Mass", "mass_ratio": "Mass ratio", "auroc": "AUROC", "iou": "IoU"}


def leakage(documents: Documents) -> list[Block]:
    """Return the section on the leakage test."""
    test = documents.leakage
    if test is None:
        return [Text("The leakage test was not run; run: dvc repro leakage.")]
    cohort, gaps = test["cohort"], test["gap"]
    rows = [
        (
            humanize(name),
            *value_and_ci(arm["slice"]["accuracy"]),
            number(arm["slice"]["auc"]["value"]),
            number(arm["training_accuracy"]),
            str(arm["shared_subjects"]),
        )
        for name in ARMS
        for arm in [test["arms"][name]]
    ]
    columns = (
        "Network", "Accuracy per slice", "95 % interval", "AUC per slice", "Training accuracy",
        "Subjects on both sides",
    )  # fmt: skip
    return [
        Text(f"Result {test['verdict']}: {test['reason']}."),
        Text(
            f"Four small networks were trained on {plural(cohort['subjects'], 'subject')} outside the "
            f"test set ({cohort['planes']} planes each, {cohort['step_mm']:g} mm apart), split by "
            "subject and by slice, with true labels and with labels shuffled among subjects. The "
            f"slice split gains {points(gaps['true_labels'])} with true labels and "
            f"{points(gaps['shuffled_labels'])} with shuffled ones."
        ),
        Table("The four networks of the leakage test", columns, rows),
        Chart(
            data_uri(leakage_figure(test)),
            "Accuracy per slice of the four networks, by split and by true or shuffled labels; the "
            "numbers are in the table.",
            "Accuracy gained by recognising subjects.",
            wide=True,
        ),
    ]


def saliency(documents: Documents) -> list[Block]:
    """Return the section on group maps, scores and sanity checks."""
    cam = documents.cam
    if cam is None:
        return [Text("Saliency maps were not made; run: dvc repro explain.")]
    blocks: list[Block] = [
        Text(
            f"{METHODS[cam['method']]} A z-scored attribution map combines it with integrated gradients, "
            "the contribution of each pixel to the log-odds of AD relative to the mean healthy slice. "
            "Both are z-scored against the maps of "
            f"{plural(cam['reference_scans'], 'healthy training scan')}, minus the scan's own mean, since "
            "a network responds to some places in every scan and disease raises the map everywhere. A "
            "Wiener filter on the principal components of healthy maps removes voxel noise. The result "
            "shows where a subject differs from healthy ones."
        ),
        _alarms(cam),
        _masses_table(cam),
    ]
    if documents.maps is not None:
        blocks += _pictures(documents, documents.maps)
        blocks += [Heading("By region"), _regions_table(documents.maps.regions)]
    blocks += _truth(cam["truth"])
    blocks += _sanity(cam["sanity"], documents.maps)
    return blocks


def _masses_table(cam: Mapping[str, Any]) -> Table:
    rows = [
        (
            f"{NAMES[kind]}: {_group(name)}",
            str(facts["scans"]),
            percent(facts["ad_pattern"]["mass"]),
            number(facts["ad_pattern"]["over_volume"], 2),
        )
        for kind in NAMES
        for name, facts in cam[kind].items()
    ]
    columns = ("Mean map", "Scans", "In AD regions", "Over their share of the brain")
    return Table("Mass of the groups' mean maps", columns, rows)


def _regions_table(regions: pd.DataFrame) -> Table:
    ranked = regions.sort_values("ad_referenced_density", ascending=False, kind="stable")
    rows = [
        (
            f"{row['region']}{' *' if row['ad_pattern'] else ''}",
            number(row["ad_referenced_density"], 2),
            number(row["cn_referenced_density"], 2),
            percent(row["ad_referenced_mass"]),
            number(row["ad_uptake"], 2),
            number(row["cn_uptake"], 2),
        )
        for row in ranked.to_dict("records")
    ]
    columns = ("Region", "Density, AD", "Density, CN", "Mass, AD", "Uptake, AD", "Uptake, CN")
    caption = (
        "Z-scored attribution maps and uptake by region. Density: share of the map over share of the "
        "brain, 1 if even. Uptake: SUVR. * Alzheimer's disease begins here."
    )
    return Table(caption, columns, rows)


def _alarms(cam: Mapping[str, Any]) -> Text:
    text = (
        f"{percent(cam['outside'])} of the log-odds by which AD scans differ from CN scans come from pixels "
        f"outside the brain, where no disease can be (alarm above {percent(MOST_OUTSIDE)})."
    )
    if not cam["alarms"]:
        return Text(text)
    return Text(f"Alarm: {text} Look for marks, borders or noise there before you trust the model.")


def _group(name: str) -> str:
    """Return a group in words: ``ad_wrong`` is "AD, misclassified"."""
    diagnosis, _, outcome = name.partition("_")
    return diagnosis.upper() + OUTCOMES[outcome]


def _pictures(documents: Documents, maps: Maps) -> list[Block]:
    """Return group maps on coronal sections and a glass brain."""
    counts = documents.metrics["counts"]
    if min(counts["subjects_ad"], counts["subjects_cn"]) < FEWEST_SUBJECTS:
        return [Text("Group maps are not shown: with one subject a group's map is that subject's image.")]
    blocks: list[Block] = []
    for kind, (suffix, unit, title) in KINDS.items():
        ad, cn, difference = (maps.volumes[f"{name}_{suffix}"] for name in ("ad", "cn", "difference"))
        cam = documents.cam or {}
        figure = group_map_figure(
            ad, cn, difference, maps.underlay, maps.affine,
            n_ad=cam["exact"]["ad"]["scans"], n_cn=cam["exact"]["cn"]["scans"],
            hide_below=maps.hide_below, unit=unit,
        )  # fmt: skip
        alt = (
            f"{title} of the AD and CN test scans and their difference on coronal sections, patient's left "
            "on the left; shares by region are in the tables."
        )
        caption = f"{title}, mean of each group ({LONG_UNITS[kind]}). L and R are the patient's."
        blocks.append(Chart(data_uri(figure, "png"), alt, caption, wide=True))
    difference = maps.volumes["difference_referenced"]
    glass = glass_brain_figure(difference, maps.affine, hide_below=maps.hide_below)
    alt = "AD minus CN of the z-scored attribution maps in a glass brain, from four sides."
    caption = "AD minus CN of the z-scored attribution maps (SD), as maximum intensity projections."
    return [*blocks, Chart(data_uri(glass, "png"), alt, caption, wide=True)]


def _truth(truth: Mapping[str, Any]) -> list[Block]:
    heading = Heading("Scores against the simulated deficit")
    if not truth["scans"]:
        return [heading, Text("Only simulated scans have a known deficit: these maps could not be scored.")]
    blank = truth["untrained"]
    found = blank["untrained referenced"]
    text = (
        "Pointing: the map's highest voxel lies in the deficit. Mass: share of the map in it; the ratio "
        "is over the deficit's own share. AUROC: a voxel of the deficit is higher than another. IoU: "
        "overlap of the deficit with as many of the highest voxels. A map that scores no higher than "
        f"those of untrained networks (of {blank['scans']} scans) finds nothing. The signs of the "
        f"{blank['networks']} untrained networks' maps are arbitrary: the AUROC of z-scored maps is between "
        f"{number(found['auroc']['lowest'], 2)} and {number(found['auroc']['highest'], 2)}, pointing "
        f"between {number(found['pointing']['lowest'], 2)} and {number(found['pointing']['highest'], 2)}. "
        "Other patients: the mean score of all other scored patients' maps on this patient's deficit. Z-map: "
        "how far a scan's smoothed uptake lies below that of healthy training scans, voxel by voxel, without "
        "a network (cf. 3D-SSP). Worse side: the map is heavier in the hemisphere that holds more of the "
        f"deficit, in {plural(truth['side']['subjects'], 'subject')} whose hemispheres differ by at least "
        f"{percent(truth['side']['least_asymmetry'])} of it ({truth['side']['left']} worse on the left)."
    )
    sides = truth["side"]["agreement"]
    rows = [
        (
            title,
            *(f"{number(scores[key]['value'], 2)} ({format_ci(scores[key], 2)})" for key in SCORES),
            f"{number(sides[name]['value'], 2)} ({format_ci(sides[name], 2)})" if name in sides else "-",
        )
        for name, title in CONTROLS.items()
        if (scores := truth["scores"].get(name))
    ]
    caption = (
        f"Maps of {plural(truth['scans'], 'correctly classified AD scan')} against the simulated deficit, "
        f"which covers {percent(truth['area_share'])} of the scored voxels; 95 % intervals over subjects"
    )
    return [
        heading,
        *(Text(typeset(sentence)) for sentence in truth["verdict"].values()),
        Text(text),
        Table(caption, ("Map", *SCORES.values(), "Worse side"), rows),
        *([_differences(truth)] if truth["differences"] else []),
    ]


def _differences(truth: Mapping[str, Any]) -> Table:
    rows = [
        (
            CONTROLS[name],
            RIVALS[rival],
            *(f"{number(scores[key]['value'])} ({format_ci(scores[key])})" for key in SCORES),
        )
        for name, rivals in truth["differences"].items()
        for rival, scores in rivals.items()
    ]
    caption = "A patient's own map minus its controls, paired; 95 % intervals over subjects"
    return Table(caption, ("Own map", "Minus", *SCORES.values()), rows)


def _sanity(sanity: Mapping[str, Any], maps: Maps | None) -> list[Block]:
    heading = Heading("Sanity checks")
    if not sanity["scans"]:
        return [heading, Text("There was no AD scan to check the maps on.")]
    areas = sanity["area_over_random"]
    last = sanity["cascade"][-1]["similarity"]
    text = (
        f"On {plural(sanity['scans'], 'AD scan')}. With all weights randomized, the rank correlation of "
        f"the maps with the original ones is {number(last, 2)}: a map that stayed the same would show the "
        "image, not the network. Replacing the voxels that the z-scored map ranks highest by healthy "
        f"tissue lowers the log-odds by {number(areas['referenced']['deletion'], 2)} more than replacing "
        "random ones (mean over the share replaced), and inserting them into a healthy scan raises the "
        f"log-odds by {number(areas['referenced']['insertion'], 2)} more; for CAM "
        f"{number(areas['exact']['deletion'], 2)} and {number(areas['exact']['insertion'], 2)}."
    )
    rows = [(row["layer"], number(row["similarity"], 2)) for row in sanity["cascade"]]
    blocks: list[Block] = [heading, Text(text)]
    if maps is not None and maps.cascade is not None and maps.curves is not None:
        blocks.append(
            Chart(
                data_uri(sanity_figure(maps.cascade, maps.curves)),
                "Left: similarity of maps as weights are randomized from the head down. Right: log-odds as "
                "tissue is replaced in the maps' order and at random; the numbers are in text and table.",
                "Weight randomization, deletion and insertion.",
                wide=True,
            )
        )
    caption = "Similarity to the original maps, with the weights randomized down to a layer"
    return [*blocks, Table(caption, ("Layer", "Rank correlation"), rows)]
