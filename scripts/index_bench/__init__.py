"""The parts of bench_index.py: data, the systems compared, how they are measured, and the report.

What runs in a child of the peers' own environment (dataset, measure and the peers' files) needs numpy and the peer
alone; nothing there imports the product.
"""
