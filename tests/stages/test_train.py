"""The input example that goes with a model is like the model's inputs."""

from adpet.params import load_params
from adpet.stages.train import _example


def test_the_example_is_a_ratio_image_that_the_window_does_not_cut_off(project_root):
    example = _example(load_params(project_root / "params.yaml"))
    assert example.shape == (16, 64, 64, 1)
    assert (example == 255).mean() < 0.01
    assert example.max() > 128
