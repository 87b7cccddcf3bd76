"""A model must say how its input is made, or it is not asked."""

import numpy as np
import pytest

from adpet.commands.predict import METADATA, TAGS, WEIGHTS_TAG, _require_ours, position_weights
from adpet.errors import TrackingError
from adpet.tracking.registry import Version


def version(tags):
    return Version(name="other", number=1, run_id="", model_id="", aliases=(), tags=tags, description="")


def test_a_model_from_elsewhere_is_refused_in_one_line():
    with pytest.raises(
        TrackingError, match=r"models:/other/1: required a model .* without standardize, slice"
    ):
        _require_ours("models:/other/1", {}, version({}))


def test_a_model_of_this_pipeline_is_taken():
    _require_ours("models:/adpet/1", {key: {} for key in METADATA}, version(dict.fromkeys(TAGS, "0.5")))


def test_a_model_with_learned_weights_must_bring_them():
    tags = dict.fromkeys(TAGS, "0.5") | {"adpet.aggregation": "position_weights"}
    metadata = {key: {} for key in METADATA}
    with pytest.raises(TrackingError, match=f"without {WEIGHTS_TAG}"):
        _require_ours("models:/adpet/1", metadata, version(tags))
    _require_ours("models:/adpet/1", metadata, version(tags | {WEIGHTS_TAG: "[1.0]"}))


def test_weights_are_read_from_the_version_and_are_none_without_them():
    assert position_weights(version({})) is None
    np.testing.assert_array_equal(position_weights(version({WEIGHTS_TAG: "[0.25, 0.75]"})), [0.25, 0.75])
