"""
A benchmark on a tiny suite
===========================

A suite is data x scans x methods. Finished rows are kept by their content, so that the same suite run again only adds
what is new.
"""

import tempfile
from pathlib import Path

from deft_ct.evaluation.parquet_store import read_rows
from deft_ct.io import sample_series_path
from deft_ct.workflows.benchmark import run_suite
from deft_ct.workflows.suite import Suite

# %%
# The suite
# ---------
# On the command line it is a YAML file with the same keys: ``deft-ct benchmark SUITE.yaml --out OUT``. The data are two
# slices of the shipped series.

out = Path(tempfile.mkdtemp()) / "out"
suite = Suite(
    data=(f"folder:{sample_series_path()}",),
    scans=("parallel20_1e5",),
    methods=("fbp", "cgls:iterations=10", "tv"),
    limit=2,
    panels=0,
)
comparison, failed = run_suite(suite, out)

# %%
# The rows
# --------
# One row for each method and slice, with metrics, time, cost, data residual and provenance.

rows = read_rows(out)
print(failed or "no method failed")
print(rows[["method", "psnr_db", "ssim", "seconds"]].to_string(index=False, float_format="%.3g"))

# %%
# The files
# ---------
# ``benchmark.html`` is one page with tables, intervals and pictures; ``summary.*`` are for a paper.

print(*sorted(path.name for path in out.iterdir()), sep="\n")

# %%
# Add a method
# ------------
# The three methods are there already. Only the new one is measured.

larger = Suite(data=suite.data, scans=suite.scans, methods=(*suite.methods, "sirt:iterations=30"), limit=2, panels=0)
run_suite(larger, out)
print(read_rows(out).groupby("method")["psnr_db"].mean().round(2).to_string())
