"""Reconstruction methods.

``deft_ct.methods()`` lists their names, and ``deft_ct.methods`` is also this package. Importing a package binds its
name in the parent and would hide the function, so the package itself can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType


class _Methods(ModuleType):
    def __call__(self) -> list[str]:
        from deft_ct.methods.registry import methods

        return methods()


sys.modules[__name__].__class__ = _Methods
