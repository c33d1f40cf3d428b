"""The conductor: what flows, in which order, on which workers."""
