"""The scan, the convolution, RoPE and the loss: a reference of each, and the faster forms."""
