"""Faults planted on purpose in small networks on real digits: which indicator tells faulty from sound?

python -m benchmarks.planted train --folder F     # trains what is missing, a few seconds a network
python -m benchmarks.planted score --folder F     # prints the tables of docs/indicators.md
"""
