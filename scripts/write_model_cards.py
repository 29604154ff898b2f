"""Write the model cards of the shipped networks anew, from the metadata next to their weights.

A script and not a command, because only a release of new weights needs it.
"""

import json
from pathlib import Path

from deft_ct.networks.model_card import FILE, model_card
from deft_ct.runtime.atomic import write_text

ASSETS = Path(__file__).parents[1] / "deft_ct/assets"
KINDS = {"priors": ("prior", "deft_ct.json"), "htransforms": ("h-transform", "htransform.json"),
         "models": ("trained model", "model.json")}  # fmt: skip


def main() -> None:
    """Write every card."""
    for kind, (noun, name) in KINDS.items():
        for path in sorted((ASSETS / kind).glob(f"*/{name}")):
            write_text(path.parent / FILE, model_card(noun, json.loads(path.read_text(encoding="utf-8"))))
            print(path.parent / FILE)


if __name__ == "__main__":
    main()
