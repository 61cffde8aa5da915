"""How a report reaches its MLflow run. Knows MLflow and the report, not Lightning."""
