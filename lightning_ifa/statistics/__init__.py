"""Pure functions of arrays; nothing here knows torch, Lightning or MLflow."""
