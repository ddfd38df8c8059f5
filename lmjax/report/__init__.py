"""The report of one run or several: what their files say, as one HTML page."""
