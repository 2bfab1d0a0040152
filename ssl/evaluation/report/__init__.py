"""The report of runs as one page, and what it shows of single images."""
