"""Markets: everything that knows the shape of a venue's data; the folders know no other."""
