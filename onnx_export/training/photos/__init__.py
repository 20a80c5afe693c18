"""Training on photographs of clothes: masks and edits make exact triplets out of pictures without captions."""
