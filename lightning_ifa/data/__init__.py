"""What goes in: batches, sampling, metadata, regions, image properties, and the FeatureTable."""
