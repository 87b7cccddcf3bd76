"""A model must say how its input is made, or it is not asked."""

import pytest

from adpet.commands.predict import METADATA, TAGS, _require_ours
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
