"""``python -m deft_ct`` is ``deft-ct``."""

from deft_ct.cli import app

if __name__ == "__main__":
    app(prog_name="deft-ct")
