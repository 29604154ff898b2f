"""``deft-ct models``."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deft_ct.cli.errors import one_line_errors
from deft_ct.diffusion.prior_folder import load_prior, shipped_priors
from deft_ct.methods.deft.folder import load_htransform, shipped_htransforms
from deft_ct.methods.supervised.model import FORMAT


def models() -> None:
    """List the networks that come with the package.

    Example: `deft-ct models`

    Networks are priors, h-transforms and trained models of supervised methods. Each has a hash.
    """
    table = Table(title="Shipped models")
    for heading in ("kind", "name", "parameters", "SHA-256"):
        table.add_column(heading)
    with one_line_errors():
        for name in shipped_priors():
            prior = load_prior(name)
            count = sum(p.numel() for p in prior.parameters())
            table.add_row("prior", escape(name), f"{count / 1e6:.2f} M", prior.content_hash()[:16])
        for name in shipped_htransforms():
            head = load_htransform(name)
            count = sum(p.numel() for p in head.parameters())
            table.add_row("h-transform", escape(name), f"{count / 1e6:.2f} M", head.content_hash()[:16])
        for name in FORMAT.shipped():
            meta, weights = FORMAT.read(FORMAT.find(name))
            count = sum(value.numel() for value in weights.values())
            table.add_row(escape(meta["kind"]), escape(name), f"{count / 1e6:.2f} M", meta["sha256"][:16])
    Console().print(table if table.row_count else "No models come with this installation.")
