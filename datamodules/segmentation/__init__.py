"""Images with masks of structures, 2D or 3D: how they are read, brought to one grid and scale, and cut into patches."""
