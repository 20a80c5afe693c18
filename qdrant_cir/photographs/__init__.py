"""Photographs of clothes without captions: where the garment is, what colour it has, and exact edits of it."""
