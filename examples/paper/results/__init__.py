"""The paper's table: what is measured on a trained row, how it is recorded, and how it is printed."""
