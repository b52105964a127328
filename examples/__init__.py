"""Examples of what runs on the mesh."""
