"""What people see of a FeatureReport: figures, Markdown, HTML."""
