"""Recipes of the audio domain."""

from __future__ import annotations

from zoo.recipe import Condition, DiffusionPart, Discrete, Recipe, Sampling, Training

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
WORDS = ("yes", "no", "stop", "go")
