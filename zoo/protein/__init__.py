"""Proteins: backbones of small domains, and folders of anybody's structures."""

from __future__ import annotations

from typing import Any

#: steers that `zoo.protein.wishes` makes
WISHES = ("radius", "secondary", "strands", "helices", "pattern", "contact", "clash")


def __getattr__(name: str) -> Any:
    # lazily, so that the recipes can be listed without loading torch
    if name == "DOMAIN":
        from zoo.protein.domain import DOMAIN

        return DOMAIN
    if name == "symmetry":
        from zoo.protein.copies import symmetry

        return symmetry
    if name in WISHES:
        from zoo.protein import wishes

        return getattr(wishes, name)
    raise AttributeError(f"module 'zoo.protein' has no attribute {name!r}")
