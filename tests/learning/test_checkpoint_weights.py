import numpy as np
import pytest

from adpet.learning.checkpoint import weights_difference


class Network:
    """All that is asked of a Keras model."""

    def __init__(self, *weights):
        self.weights = [np.asarray(one, dtype=np.float32) for one in weights]

    def get_weights(self):
        return self.weights


def test_the_same_bits_are_no_difference_even_where_they_are_nan():
    first, second = (Network([[1.0, np.nan]], [2.0]) for _ in range(2))
    assert weights_difference(first, second) is None


def test_the_largest_difference_of_all_weights_is_returned():
    assert weights_difference(Network([1.0, 2.0], [3.0]), Network([1.0, 2.5], [2.0])) == 1.0


def test_nought_with_another_sign_is_not_the_same_bits_but_no_distance():
    assert weights_difference(Network([0.0]), Network([-0.0])) == 0.0


@pytest.mark.parametrize("other", [([1.0],), ([1.0, 2.0], [3.0]), ([[1.0], [2.0]],)])
def test_weights_of_another_shape_are_infinitely_far_away(other):
    assert weights_difference(Network([1.0, 2.0]), Network(*other)) == float("inf")
