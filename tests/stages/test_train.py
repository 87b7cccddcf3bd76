"""What goes with a model: an input example that is like its inputs, and the settings that it follows from."""

from adpet.params import flatten, load_params
from adpet.stages.train import _example, _settings


def test_the_example_is_a_ratio_image_that_the_window_does_not_cut_off(project_root):
    example = _example(load_params(project_root / "params.yaml"))
    assert example.shape == (16, 64, 64, 1)
    assert (example == 255).mean() < 0.01
    assert example.max() > 128


def test_what_a_model_follows_from_can_be_set_again(project_root):
    """`adpet reproduce` writes it into params.yaml, whether or not the model was refitted."""
    params = load_params(project_root / "params.yaml")
    for folds in (0, 3):
        wanted = params.with_values({"evaluate.cross_validation": folds})
        followed = _settings(wanted)
        assert params.with_values(flatten(followed)).refits() == wanted.refits()
        assert ("evaluate" in followed) == wanted.refits()
