"""From a folder or a manifest to pixels."""
