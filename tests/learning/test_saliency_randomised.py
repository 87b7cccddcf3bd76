"""Weights are lost block by block, from the head down, in a copy."""

from itertools import pairwise

import numpy as np

from adpet.learning.saliency import cascade


def changed(model, other):
    return {
        layer.name
        for layer in model.layers
        for ours, theirs in zip(layer.get_weights(), other.get_layer(layer.name).get_weights(), strict=True)
        if not np.array_equal(ours, theirs)
    }


def test_the_head_is_lost_first_and_the_first_layer_last(small_model):
    model = small_model()
    names, lost = [], []
    for name, randomised in cascade(model, seed=1):
        names.append(name)
        lost.append(changed(model, randomised))
    assert (names[0], names[-1]) == ("head", "Conv1")
    assert lost[0] == {"head"}
    assert "block_6_expand" in lost[1]
    assert all(earlier <= later for earlier, later in pairwise(lost))


def test_what_is_permuted_keeps_its_values(small_model):
    model = small_model()
    *_, (_, randomised) = cascade(model, seed=1)
    for ours, theirs in zip(model.get_weights(), randomised.get_weights(), strict=True):
        np.testing.assert_array_equal(np.sort(ours, axis=None), np.sort(theirs, axis=None))


def test_the_network_itself_stays_as_it_was(small_model):
    model = small_model()
    before = model.get_weights()
    list(cascade(model, seed=1))
    for ours, earlier in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, earlier)
