"""Fit the h-transform to a folder of CT; run again to resume. The same as `deft-ct finetune`; see `--help`."""

import typer

from deft_ct.cli.finetune import finetune

if __name__ == "__main__":
    typer.run(finetune)
