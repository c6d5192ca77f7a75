"""The shelf of adapters and the ways in and out."""
