"""The way in: a public call becomes checked operands, a tier fills the results."""
