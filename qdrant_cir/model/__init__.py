"""A bundle and its graphs, as the runtime runs them."""
