"""A network from the outside: outputs, target layer, activation capture, patching, head, isolation."""
