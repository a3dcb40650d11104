"""Folders of lerobot: its diffusion policies in, our policies out."""

from zoo.interop.lerobot.format import LeRobotFormat

FORMAT = LeRobotFormat()
