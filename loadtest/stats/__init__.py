"""Histograms, windows, intervals and tests of steadiness: numbers in, numbers out."""
