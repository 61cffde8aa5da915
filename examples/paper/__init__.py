"""The eight data sets on which integrated feature analysis was published: readers, networks, and the table.

python -m examples.paper.make_small --root data/small        # stand-ins in the published formats
lightning-ifa fit --config configs/paper/rsna.yaml --data.root data/small/rsna
python -m examples.paper.table                               # all rows, as in docs/paper.md
"""
