"""Measures the generator itself: its CPU per request, and its agreement with queueing theory, wrk and hey."""
