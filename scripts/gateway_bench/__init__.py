"""The parts of bench_gateway.py: synthetic engine, load generator, the ways compared, phases and report."""
