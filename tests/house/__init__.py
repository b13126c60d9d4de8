"""The package as a whole: its layout, its imports, its README."""
