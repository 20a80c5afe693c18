"""Training: what every model needs here; the user's own data, drawn products and photographs in folders."""
