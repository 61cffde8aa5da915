"""Sound and faulty networks on real, hard data: trained here, judged at every epoch."""
