"""One data module a row of the paper's table; each reads the layout in which its data set is published."""
