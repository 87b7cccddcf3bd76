"""Patterns of disease: subtypes of Alzheimer's disease, other diseases.

A pattern is a factor on each of `LESIONS`. Those of the subtypes are divided by their mean over the cohort's
shares, so that a group of patients loses on average what `LESIONS` says, whatever its subtypes.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from adpet.simulation.subject import INFARCTS, LESIONS, Person

# Factors that are not 1, before the division: hypometabolism of the limbic-predominant subtype lies in the
# medial and anterior temporal lobe, that of the cortical-predominant one in widespread cortex and spares the
# medial temporal lobe (Levin et al. 2021, doi:10.1186/s13195-021-00785-9). The sizes are assumed.
SUBTYPES: dict[str, dict[str, float]] = {
    "typical": {},
    "limbic": {
        "medial temporal": 1.8, "temporal pole": 1.8, "orbitofrontal": 1.4, "inferior temporal": 1.1,
        "posterior cingulate": 0.9, "precuneus": 0.7, "middle temporal": 0.8, "angular": 0.6,
        "inferior parietal": 0.6, "dorsolateral prefrontal": 0.6, "lateral occipital": 0.5,
    },
    "cortical": {
        "medial temporal": 0.3, "temporal pole": 0.7, "precuneus": 1.2, "middle temporal": 1.3,
        "inferior temporal": 1.2, "angular": 1.5, "inferior parietal": 1.7, "dorsolateral prefrontal": 2.0,
        "medial prefrontal": 1.4, "lateral occipital": 2.5,
    },
}  # fmt: skip
# Share of grey uptake lost at severity 1, instead of that of `LESIONS`; the sizes are assumed. Frontotemporal
# dementia, behavioural variant: prefrontal cortex, cingulate, insula, anterior temporal lobe (Jeong et al.
# 2005, J Nucl Med 46:233). Dementia with Lewy bodies: occipital and parietal cortex, with the posterior
# cingulate spared (Graff-Radford et al. 2014, doi:10.1212/WNL.0000000000000734).
OTHER_LOSSES: dict[str, dict[str, float]] = {
    "FTD": {
        "dorsolateral prefrontal": 0.25, "medial prefrontal": 0.30, "anterior cingulate": 0.30,
        "orbitofrontal": 0.28, "insula": 0.18, "temporal pole": 0.20, "thalamus": 0.08,
    },
    "DLB": {
        "occipital": 0.28, "lateral occipital": 0.28, "precuneus": 0.20, "angular": 0.20,
        "inferior parietal": 0.14, "middle temporal": 0.10, "posterior cingulate": 0.04,
    },
}  # fmt: skip
# Assumed: the worse side of a lateralised patient loses 1 + this many times what a symmetric one's does, the
# other side 1 - this many times.
ASYMMETRY = (0.3, 0.7)


def patterned(person: Person, *, pattern: str, asymmetry: float, subtypes: Mapping[str, float]) -> Person:
    """Return the person with the losses of a pattern.

    That is one of `SUBTYPES` (with the share of each in the cohort), `OTHER_LOSSES` or `INFARCTS`. Above 0,
    `asymmetry` takes more from the left side; of an infarct it is 1 or -1.
    """
    if pattern in INFARCTS:
        lost = np.append(np.zeros(len(LESIONS)), np.isin(list(INFARCTS), pattern) / 2)
        left, right = lost * (1 + asymmetry), lost * (1 - asymmetry)
        return replace(person, lost_left=left, lost_right=right, medial_thinning=0.0, most_lost=1.0)
    factor = _factors(pattern, subtypes)
    return replace(
        person,
        lost_left=person.lost_left * factor * (1 + asymmetry),
        lost_right=person.lost_right * factor * (1 - asymmetry),
        medial_thinning=float(factor[list(LESIONS).index("medial temporal")]),
    )


def _factors(pattern: str, subtypes: Mapping[str, float]) -> npt.NDArray[np.float64]:
    if pattern in OTHER_LOSSES:
        return np.array(
            [OTHER_LOSSES[pattern].get(name, 0.0) / lesion[2] for name, lesion in LESIONS.items()]
        )
    factors = {name: np.array([own.get(lesion, 1.0) for lesion in LESIONS]) for name, own in SUBTYPES.items()}
    mean = np.sum([share * factors[name] for name, share in subtypes.items()], axis=0) / sum(
        subtypes.values()
    )
    return np.asarray(factors[pattern] / mean)
