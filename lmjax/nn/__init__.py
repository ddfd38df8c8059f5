"""Pure Linen modules. They know no token strings, no meshes and no family names."""
