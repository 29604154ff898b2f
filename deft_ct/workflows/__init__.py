"""Whole jobs, from files to files."""

from deft_ct.workflows.finetune import FinetuneSettings, finetune
from deft_ct.workflows.training_setup import FolderSource

__all__ = ["FinetuneSettings", "FolderSource", "finetune"]
