"""The sections, a module a trade: each function takes a report and the name of its part."""
