"""What a query computes; pure but for the graphs."""
