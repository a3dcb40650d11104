"""Folders of diffusers: pipelines and nets in, our models out."""

from zoo.interop.diffusers.format import DiffusersFormat

FORMAT = DiffusersFormat()
