"""Which CAM methods to trust for a network, and what the channels of a confounder see."""
