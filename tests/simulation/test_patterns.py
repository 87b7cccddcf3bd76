"""Subtypes share what the group loses."""

import numpy as np

from adpet.simulation.patterns import patterned
from adpet.simulation.subject import LESIONS, average_person

SHARES = {"typical": 0.49, "limbic": 0.44, "cortical": 0.07}


def lost(anatomy, pattern, *, asymmetry=0.0, subtypes=SHARES):
    person = patterned(average_person(anatomy), pattern=pattern, asymmetry=asymmetry, subtypes=subtypes)
    return person.lost_left, person.lost_right


def test_group_of_all_subtypes_loses_what_the_lesions_say(anatomy):
    mean = sum(share * lost(anatomy, name)[0] for name, share in SHARES.items())
    np.testing.assert_allclose(mean, [amount for _, _, amount in LESIONS.values()])


def test_typical_patients_alone_are_those_without_subtypes(anatomy):
    person = patterned(average_person(anatomy), pattern="typical", asymmetry=0.0, subtypes={"typical": 1.0})
    assert (person.lost_left == average_person(anatomy).lost_left).all()
    assert person.medial_thinning == 1


def test_limbic_subtype_is_deepest_in_the_medial_temporal_lobe_and_the_cortical_one_spares_it(anatomy):
    names = list(LESIONS)
    limbic, cortical = (
        dict(zip(names, lost(anatomy, name)[0], strict=True)) for name in ("limbic", "cortical")
    )
    assert limbic["medial temporal"] > 3 * cortical["medial temporal"]
    assert cortical["inferior parietal"] > 2 * limbic["inferior parietal"]
