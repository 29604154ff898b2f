"""Import every module of an installed deft_ct and check that each came from the folder given as the only argument."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

site = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(site))
import deft_ct  # noqa: E402

names = ["deft_ct", *(m.name for m in pkgutil.walk_packages(deft_ct.__path__, "deft_ct."))]
names = [name for name in names if not name.endswith(".__main__")]
OPTIONAL = {"triton"}
"""Libraries of extras that are not set up here, because they are large; each is imported by a module of its own."""
stray = []
for name in names:
    try:
        file = importlib.import_module(name).__file__
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        sys.stdout.write(f"{name} needs {error.name}, which is not installed\n")
        continue
    if file is None or not Path(file).resolve().is_relative_to(site):
        stray.append(f"{name} from {file}")
if stray or not {"deft_ct.operators", "deft_ct.datasets"} <= set(names):
    sys.exit(f"the wheel is incomplete; modules found elsewhere: {stray}; modules in it: {names}")
top_level = sorted(p.name for p in site.iterdir() if not p.name.endswith(".dist-info") and p.name != "bin")
if top_level != ["deft_ct"]:
    sys.exit(f"the wheel must install deft_ct alone, got {top_level}")
sys.stdout.write(f"{len(names)} modules imported from the wheel\n")
