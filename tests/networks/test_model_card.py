"""Model cards: of every model that is saved, in the format of the Hub."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import NETWORK, tiny_prior

from deft_ct.diffusion import load_prior, save_prior
from deft_ct.methods.deft import save_refinement
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.networks.model_card import model_card

ASSETS = Path(__file__).parents[2] / "deft_ct/assets"
KINDS = {"priors": ("prior", "deft_ct.json"), "htransforms": ("h-transform", "htransform.json"),
         "models": ("trained model", "model.json")}  # fmt: skip
SHIPPED = [path for kind in KINDS for path in sorted((ASSETS / kind).iterdir()) if path.is_dir()]


def front_matter(text: str) -> dict[str, Any]:
    """As the Hub reads it: YAML between the first two lines of three dashes."""
    empty, front, _ = text.split("---\n", 2)
    assert empty == ""
    found: dict[str, Any] = yaml.safe_load(front)
    return found


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_shipped_models_have_the_card_of_their_metadata(folder: Path) -> None:
    """Made by ``python scripts/write_model_cards.py``."""
    noun, name = KINDS[folder.parent.name]
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text == model_card(noun, json.loads((folder / name).read_text(encoding="utf-8")))
    front = front_matter(text)
    assert front["library_name"] == "deft-ct" and "Research only" in text
    assert ("computed-tomography" in front["tags"]) == (
        not folder.name.startswith(("photos", "backbones", "amortised"))
    )


def test_a_saved_model_has_a_card_that_follows_from_its_metadata(tmp_path: Path) -> None:
    prior = tiny_prior()
    prior.card = {
        "title": "A: prior", "license": "cc-by-4.0", "training": "deft-ct train prior",
        "data": {"name": "my slices", "slices": 7}, "seed": 3,
    }  # fmt: skip
    save_prior(prior, tmp_path / "prior")
    text = (tmp_path / "prior/README.md").read_text(encoding="utf-8")
    front = front_matter(text)
    assert front["license"] == "cc-by-4.0" and front["pipeline_tag"] == "unconditional-image-generation"
    assert "# A: prior\n" in text and "- slices: 7\n" in text and '"seed": 3' in text
    assert prior.content_hash() in text
    prior.card["seed"] = 4
    save_prior(prior, tmp_path / "prior")  # the card is one of our files, so it is replaced
    assert '"seed": 4' in (tmp_path / "prior/README.md").read_text(encoding="utf-8")
    assert load_prior(tmp_path / "prior").card == prior.card


def test_a_readme_that_somebody_wrote_is_not_replaced(tmp_path: Path) -> None:
    save_prior(tiny_prior(), tmp_path / "prior")
    (tmp_path / "prior/README.md").write_text("my notes")
    with pytest.raises(FileExistsError, match=r"README\.md"):
        save_prior(tiny_prior(), tmp_path / "prior")
    assert (tmp_path / "prior/README.md").read_text() == "my notes"


def test_a_card_of_anything_is_text() -> None:
    text = model_card("trained model", {"kind": "fbp_unet", "card": {"data": ["x", 1], "license": 3}, "sha256": "a"})
    assert front_matter(text)["pipeline_tag"] == "image-to-image" and 'load_reconstructor("fbp_unet"' in text


def test_the_use_of_a_card_runs(tmp_path: Path) -> None:
    save_prior(tiny_prior(), tmp_path / "prior")
    save_refinement(Refinement(RefinementConfig(network=NETWORK)), tmp_path / "refinement")
    for name in ("prior", "refinement"):
        text = (tmp_path / name / "README.md").read_text(encoding="utf-8")
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        program = code.replace("FOLDER or hf:OWNER/NAME", str(tmp_path / name))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
