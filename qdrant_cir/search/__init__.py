"""The computation of a query; pure except for the graphs."""
