"""The network run again on changed inputs or activations: swaps, masking, ablation."""
