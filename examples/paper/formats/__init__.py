"""One file format each: a ``check`` that costs a header, and a reader that gives an array."""
