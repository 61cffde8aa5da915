"""A checkpoint, or a registered model, analysed without a trainer."""
