"""Every number, table and word of a fixed set of analyses, kept by one version of the code and held against another."""
