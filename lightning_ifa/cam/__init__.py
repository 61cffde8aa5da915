"""CAM methods: from activations and gradients to maps, contributions and weights."""
