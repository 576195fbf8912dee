"""Batches: files of requests, answered when nobody else asks, and nothing answered twice."""
