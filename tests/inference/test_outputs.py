"""What the page says of its pictures and bars is what they were drawn with."""

import pytest

from adpet.imaging.nifti import read_volume
from adpet.inference import outputs
from adpet.inference.exported_model import open_model
from adpet.inference.predictor import answer


@pytest.fixture(scope="module")
def answered(small_export, small_scans):
    model = open_model(small_export)
    return answer(read_volume(small_scans[0]), model, name="one"), model


def test_it_tells_the_constants_that_it_was_drawn_with(answered):
    html = outputs.answer_html(*answered)
    assert "What is below 20 % of the largest value is not drawn." in html
    assert "<span>-4</span><span>0</span><span>+4</span>" in html


def test_it_tells_other_constants_where_they_are_others(answered, monkeypatch):
    monkeypatch.setattr(outputs, "HIDE_BELOW", 0.35)
    monkeypatch.setattr(outputs, "FULL_BAR_Z", 2.5)
    html = outputs.answer_html(*answered)
    assert "What is below 35 % of the largest value is not drawn." in html
    assert "<span>-2.5</span><span>0</span><span>+2.5</span>" in html
