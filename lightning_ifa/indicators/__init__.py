"""The families of indicators, one file each, behind one interface; ``registry`` lists them."""
