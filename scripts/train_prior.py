"""Train an unconditional CT prior; run again to resume. The same as `deft-ct train prior`; see `--help`."""

import typer

from deft_ct.cli.train import prior

if __name__ == "__main__":
    typer.run(prior)
