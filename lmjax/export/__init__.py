"""Workdirs from published checkpoints, and published checkpoints from workdirs."""
