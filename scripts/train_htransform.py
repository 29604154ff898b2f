"""Train the h-transform of a prior; run again to resume. The same as `deft-ct train htransform`; see `--help`."""

import typer

from deft_ct.cli.train import htransform

if __name__ == "__main__":
    typer.run(htransform)
