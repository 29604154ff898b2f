"""The documentation site: ``make docs`` builds it, see CONTRIBUTING.md."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "deft-ct"
author = "The deft-ct authors"
project_copyright = "the deft-ct authors"
version = release = installed_version("deft-ct")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "generated_pages",
]
exclude_patterns = ["_build", "_extensions", "tutorials"]
suppress_warnings = ["config.cache"]  # the gallery's settings hold a class
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

# Text
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
highlight_language = "none"
smartquotes = False  # it would turn the dashes of options into one

# Reference from docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# A type that ends in an underscore reads as a link; let it be one.
rst_epilog = ".. _numpy.str: https://numpy.org/doc/stable/reference/arrays.scalars.html#numpy.str_"

# Tutorials. They are run by `make docs`; `make docs-quick` shows their text and code only.
sphinx_gallery_conf = {
    "examples_dirs": ["tutorials"],
    "gallery_dirs": ["auto_tutorials"],
    "filename_pattern": r"/\d\d_",
    "plot_gallery": os.environ.get("DEFT_CT_RUN_TUTORIALS", "1") == "1",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "write_computation_times": False,  # its page loads scripts from elsewhere
    "abort_on_example_error": True,
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": (True, "jshtml"),  # a slider over the slices of a volume
    "remove_config_comments": True,
    "copyfile_regex": r".*\.rst",
}


def _warning_without_path(message: object, category: type[Warning], *place: object) -> str:
    """A warning in a tutorial, without the folder that the site was built in."""
    del place
    return f"{category.__name__}: {message}\n"


warnings.formatwarning = _warning_without_path

# Pages
html_theme = "pydata_sphinx_theme"
html_title = "deft-ct"
html_static_path = ["_static"]
html_css_files = ["deft.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 8,
    "footer_start": ["copyright"],
    "footer_end": ["research_only"],
    "pygments_light_style": "tango",
}
html_sidebars = {"index": [], "faq": []}
templates_path = ["_templates"]
copybutton_prompt_text = "$ "
