"""Optimizers, schedules and the policies that tell parameters apart."""
