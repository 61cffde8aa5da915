"""Small stand-ins, one module a row: made images with findings at known places, written in the published formats."""
