"""Uncurated images, made fit to train on: scan, audit, account for, select, review, take down.

Functions are imported from the files of their names, for example `from wildfern.ssl.curation.semdedup import semdedup`: processes
that only read images do without torch.
"""
