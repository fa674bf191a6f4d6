"""The products of a mixture: sorted assignments through the linear maps of their experts."""
