"""Documents are validated strictly, and the page's types follow from them."""

import json
import runpy

import pytest

from adpet.errors import InputError
from adpet.inference.exported_model import open_model


@pytest.mark.parametrize(
    ("section", "value", "problem"),
    [
        ("threshold", "0.5", "threshold: input should be a valid number"),
        ("threshold", None, "threshold: input should be a valid number"),
        ("leaky", 1, "leaky: input should be a valid boolean"),
        ("slices", {}, r"slices\.y_mm: field required \(and 4 more\)"),
        ("surprise", 1, "surprise: extra inputs are not permitted"),
    ],
)
def test_model_document_of_another_form_is_refused_in_one_line(
    small_export, tmp_path, *, section, value, problem
):
    document = json.loads((small_export / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(document | {section: value}))
    with pytest.raises(InputError, match=problem) as error:
        open_model(tmp_path)
    assert "\n" not in str(error.value)


def test_page_types_are_those_that_the_script_writes(project_root):
    script = runpy.run_path(str(project_root / "scripts/page_types.py"))
    assert script["TARGET"].read_text() == script["typescript"]()
