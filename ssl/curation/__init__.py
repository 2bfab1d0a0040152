"""Uncurated images, made fit to train on: scan, audit, account for, select, review, take down."""
