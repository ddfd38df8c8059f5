"""What is here, what is wrong and what to do about it: the checks behind tools/doctor.py.

Every check is a function that returns a `report.Section`; one that fails is a problem of its own,
so the others still report. Nothing is written and, unless a path is a URL, no network is asked.
"""
