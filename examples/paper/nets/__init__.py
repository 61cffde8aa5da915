"""Small networks of the kinds that the paper used; each is features, then a head."""
